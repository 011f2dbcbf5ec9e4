"""From a status on the wire back to the error that it was."""

from __future__ import annotations

from convoy import errors
from convoy.errors import ConvoyError, Overloaded


def error_of(attribute: str, value: object, message: str, retry_after_s: float | None = None) -> ConvoyError:
    """The error of the tree whose `http_status` or `grpc_code` is `value`; where several are, the first of the diagram.

    Only an overload says when to come back, which tells it from the others of its status.
    """
    kinds: list[type[ConvoyError]] = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, ConvoyError) and getattr(kind, attribute) == value
    ]
    if Overloaded in kinds:
        if retry_after_s is not None:
            return Overloaded(message, retry_after_s)
        kinds.remove(Overloaded)
    return kinds[0](message) if kinds else ConvoyError(message)


def seconds(text: str | bytes | None) -> float | None:
    """The seconds of a Retry-After, None when it says none."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
