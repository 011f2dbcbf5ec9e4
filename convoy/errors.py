"""The error classes with their HTTP statuses and gRPC codes, the same for server and client.

ConvoyError                 500 INTERNAL
├── InvalidInput            400 INVALID_ARGUMENT
├── Unauthenticated         401 UNAUTHENTICATED
├── Forbidden               403 PERMISSION_DENIED
├── NotFound                404 NOT_FOUND
├── MethodNotAllowed        405 UNIMPLEMENTED
├── TooLarge                413 RESOURCE_EXHAUSTED
├── UnsupportedEncoding     415 INVALID_ARGUMENT
├── UnsupportedMediaType    415 INVALID_ARGUMENT
├── Cancelled               499 CANCELLED
├── Overloaded              503 RESOURCE_EXHAUSTED
│   └── QuotaExceeded       429 RESOURCE_EXHAUSTED
├── NotReady                503 UNAVAILABLE
├── DeadlineExceeded        504 DEADLINE_EXCEEDED
├── EngineFailed            500 INTERNAL
├── ConfigError             500 INTERNAL            at start-up
└── ArtifactError           500 INTERNAL            at start-up and load
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar

from convoy import errors

REASON_CHARACTERS = 500


class ConvoyError(Exception):
    """An error with a text for users, which names the remedy if there is one."""

    http_status: ClassVar[int] = 500
    grpc_code: ClassVar[str] = "INTERNAL"


class InvalidInput(ConvoyError):
    """The request is malformed: not an image, a wrong shape, datatype, byte count or JSON."""

    http_status = 400
    grpc_code = "INVALID_ARGUMENT"


class Unauthenticated(ConvoyError):
    """No API key, or an unknown one."""

    http_status = 401
    grpc_code = "UNAUTHENTICATED"


class Forbidden(ConvoyError):
    """The API key is known but lacks permission."""

    http_status = 403
    grpc_code = "PERMISSION_DENIED"


class NotFound(ConvoyError):
    """No such model, version or path."""

    http_status = 404
    grpc_code = "NOT_FOUND"


class MethodNotAllowed(ConvoyError):
    """The path exists, but not with this method."""

    http_status = 405
    grpc_code = "UNIMPLEMENTED"


class TooLarge(ConvoyError):
    """More bytes, pixels or images than the limits allow."""

    http_status = 413
    grpc_code = "RESOURCE_EXHAUSTED"


class UnsupportedEncoding(ConvoyError):
    """A Content-Encoding other than gzip or deflate, or too many of them."""

    http_status = 415
    grpc_code = "INVALID_ARGUMENT"


class UnsupportedMediaType(ConvoyError):
    """A Content-Type that this path does not accept."""

    http_status = 415
    grpc_code = "INVALID_ARGUMENT"


class Cancelled(ConvoyError):
    """The client disconnected before the response."""

    http_status = 499
    grpc_code = "CANCELLED"


class Overloaded(ConvoyError):
    """The queue is full, or too long for the deadline; retry after `retry_after_s` seconds."""

    http_status = 503
    # Not UNAVAILABLE: gRPC clients retry it at once, without the application, which makes an overload worse.
    grpc_code = "RESOURCE_EXHAUSTED"

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message, retry_after_s)
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return str(self.args[0])


class QuotaExceeded(Overloaded):
    """The API key has used its quota of requests; retry after `retry_after_s` seconds."""

    http_status = 429


class NotReady(ConvoyError):
    """The model is loading or the server is draining; a retry may reach another replica."""

    http_status = 503
    grpc_code = "UNAVAILABLE"


class DeadlineExceeded(ConvoyError):
    """The request's deadline has passed."""

    http_status = 504
    grpc_code = "DEADLINE_EXCEEDED"


class EngineFailed(ConvoyError):
    """The engine could not run the batch."""


class ConfigError(ConvoyError):
    """The configuration is invalid, or this machine cannot run it."""


class ArtifactError(ConvoyError):
    """An artifact is missing, corrupt, or differs from its reference."""


def shown(value: object) -> str:
    """A client's value for an error text. Lists and objects are named by type only: they may be long or deeply nested."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    if isinstance(value, int) and value.bit_length() > 128:
        return "a huge number"  # Python refuses to write integers of more than 4300 digits
    return repr(value[:40] if isinstance(value, (str, bytes)) else value)[:200]


def unknown(what: str, name: str, known: Iterable[str]) -> NotFound:
    """NotFound for an unknown name, with the closest known name as a hint, else all known names."""
    return NotFound(f"unknown {what} {name[:200]!r}; {hint(name, known)}")


def hint(name: str, known: Iterable[str]) -> str:
    """The known name that is closest to a wrong one, as a question; all known names if none is close."""
    names = list(known)
    near = difflib.get_close_matches(name[:200], names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"


def reason_of(error: Exception) -> str:
    """The text of a failure for users: the full text of a ConvoyError, type and first line of any other error."""
    if isinstance(error, ConvoyError):
        return str(error)
    first_line = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {first_line}"[:REASON_CHARACTERS].removesuffix(": ")


def error_of(attribute: str, value: object, message: str, retry_after_s: float | None = None) -> ConvoyError:
    """The error whose `attribute` (`http_status` or `grpc_code`) is `value`; the first of the diagram where several match.

    Only overloads have a Retry-After, which distinguishes them from other errors of the same status.
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
    """The seconds of a Retry-After header; None when it is absent or a date."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
