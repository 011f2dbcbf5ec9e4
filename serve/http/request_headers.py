"""How long a request may take, as each wire says it."""

from __future__ import annotations

from convoy.errors import InvalidInput
from serve.gateway.dataplane import DataPlane, Terms
from serve.http.body import Headers
from serve.telemetry.request_timings import RequestTimings

TIMEOUT_HEADER = b"x-request-timeout-ms"
PRIORITY_HEADER = b"x-request-priority"


def http_terms(plane: DataPlane, headers: Headers, trace: RequestTimings) -> Terms:
    """Terms of a request from its headers. Raises InvalidInput."""
    timeout = headers.get(TIMEOUT_HEADER)
    priority = headers.get(PRIORITY_HEADER)
    if timeout is None and priority is None:
        return plane.terms(trace.started, None)
    seconds = None if timeout is None else _number(timeout, TIMEOUT_HEADER) / 1000
    return plane.terms(trace.started, seconds, int(_number(priority or b"0", PRIORITY_HEADER)))


def _number(value: bytes, name: bytes) -> float:
    try:
        number = -1.0 if b"_" in value else float(value)  # Python reads 1_0 as 10
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise InvalidInput(
            f"header {name.decode()} is {value[:40].decode('latin-1')!r}; it must be a number of at least 0"
        )
    return number
