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
    overloads = [kind for kind in kinds if issubclass(kind, Overloaded)]
    if overloads and retry_after_s is not None:
        return overloads[0](message, retry_after_s)
    others = [kind for kind in kinds if kind not in overloads]
    return next(iter(others or overloads), ConvoyError)(message)


def seconds(text: str | bytes | None) -> float | None:
    """The seconds of a Retry-After, None when it says none."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
