"""What both listeners and the experiments agree on: the header that names the arm, ids, and the work of a request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from convoy.errors import InvalidInput
from serve.batching.results import Answer
from serve.gateway.endpoints import Endpoint
from serve.gateway.request_context import RequestContext

ARM_HEADER = b"x-convoy-arm"
MAX_ID = 128

Work = Callable[[Endpoint, RequestContext], Awaitable[list[Answer]]]  # what a request asks, of whichever arm


def checked_id(identifier: str) -> str:
    """A request id that the ledger can keep. Raises InvalidInput."""
    if len(identifier) > MAX_ID or "\0" in identifier:
        raise InvalidInput(f"the id of a request to an experiment may have at most {MAX_ID} characters, and no NUL")
    return identifier
