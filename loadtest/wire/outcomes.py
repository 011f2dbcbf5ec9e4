"""The outcome of a request as one number: an HTTP status, a gRPC code + 2000, or a failure that the client saw."""

from __future__ import annotations

CONNECT = 1000
RESET = 1001
TIMEOUT = 1002
MALFORMED = 1003
UNFINISHED = 1004
NOT_2XX = 1005
GRPC = 2000

CLIENT_NAMES = {
    CONNECT: "connect: no connection",
    RESET: "reset: connection lost before the answer",
    TIMEOUT: "timeout: no answer in the client's time",
    MALFORMED: "malformed: the answer is not what the protocol says",
    UNFINISHED: "unfinished: in flight when the run ended",
    NOT_2XX: "HTTP status other than 2xx",
}
# Not taken from grpcio: a worker that uses HTTP would import it for nothing.
GRPC_NAMES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE",
    "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip


def is_ok(outcome: int) -> bool:
    """Whether the outcome is a success: HTTP 2xx or gRPC OK."""
    return 200 <= outcome < 300 or outcome == GRPC


def outcome_name(outcome: int) -> str:
    """The name of an outcome in reports."""
    if outcome >= GRPC:
        code = outcome - GRPC
        return f"gRPC {GRPC_NAMES[code] if code < len(GRPC_NAMES) else code}"
    return CLIENT_NAMES.get(outcome, f"HTTP {outcome}")
