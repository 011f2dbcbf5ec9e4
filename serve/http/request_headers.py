"""Deadline and priority of an HTTP request, from its headers."""

from __future__ import annotations

from convoy.errors import InvalidInput
from serve.gateway.dataplane import DataPlane
from serve.gateway.endpoints import Endpoint
from serve.gateway.request_context import RequestContext
from serve.gateway.request_tracker import TrackedRequest
from serve.http.auth import shown_key
from serve.http.body import Headers
from serve.http.classify import carries_large_image

TIMEOUT_HEADER = b"x-request-timeout-ms"
PRIORITY_HEADER = b"x-request-priority"


def check_request(tracked: TrackedRequest, endpoint: Endpoint, headers: Headers, images: bool) -> None:
    """Checks a request before its body is read: its key, its headers, and whether it can be answered in time.

    With open access the last check was made when the head arrived. `images`: the body may be an image that waits for a
    decoding thread. Raises ConvoyError.
    """
    plane = tracked.plane
    if plane.access.open:
        apply_headers(plane, headers, tracked.context)
        return
    tracked.authorize(shown_key(headers), endpoint.name)
    apply_headers(plane, headers, tracked.context)
    plane.check_room(endpoint, tracked.context, large=images and carries_large_image(headers))


def apply_headers(plane: DataPlane, headers: Headers, context: RequestContext) -> None:
    """Sets the deadline and the priority from the headers, where they are present. Raises InvalidInput."""
    timeout = headers.get(TIMEOUT_HEADER)
    priority = headers.get(PRIORITY_HEADER)
    if timeout is not None:
        seconds = _number(timeout, TIMEOUT_HEADER) / 1000
        context.deadline = plane.deadline(context.timings.started, seconds)
    if priority is not None:
        context.priority = int(_number(priority or b"0", PRIORITY_HEADER))


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
