"""Requests to experiments, on both wires: who calls, and the work that an arm is asked to do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, Protocol

from convoy.errors import InvalidInput
from serve.batching.results import Answer
from serve.gateway.dataplane import Terms, Watch
from serve.gateway.endpoints import Endpoint
from serve.telemetry.request_timings import RequestTimings

ARM_HEADER = b"x-convoy-arm"
MAX_ID = 128


class Caller(NamedTuple):
    """Who sends a request, as far as an experiment needs it: `header` also finds gRPC metadata, in lower case."""

    id: str
    address: str
    header: Callable[[str], str | None]
    fields: Mapping[str, Any]  # of a JSON body or a form, or parameters


class Work(Protocol):
    """What a request asks, of whichever arm."""

    def __call__(
        self, endpoint: Endpoint, *, terms: Terms, trace: RequestTimings, watch: Watch
    ) -> Awaitable[list[Answer]]: ...


MakeCaller = Callable[[str, Mapping[str, Any]], Caller]  # of the request's id and fields; raises InvalidInput


def checked_id(identifier: str) -> str:
    """A request id that the ledger can keep. Raises InvalidInput."""
    if len(identifier) > MAX_ID or "\0" in identifier:
        raise InvalidInput(f"the id of a request to an experiment may have at most {MAX_ID} characters, and no NUL")
    return identifier
