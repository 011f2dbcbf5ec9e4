"""Definitions that listeners and experiments share: the header that names the arm, and request ids."""

from __future__ import annotations

from convoy.errors import InvalidInput

ARM_HEADER = b"x-convoy-arm"
MAX_ID = 128


def checked_id(identifier: str) -> str:
    """A request id that the ledger can store. Raises InvalidInput."""
    if len(identifier) > MAX_ID or "\0" in identifier:
        raise InvalidInput(f"the id of a request to an experiment may have at most {MAX_ID} characters, and no NUL")
    return identifier
