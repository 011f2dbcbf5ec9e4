"""A request on its way, and the interface of what carries it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from loadtest.wire.requests import Request


class Call:
    """Times are of the monotonic clock in seconds; `scheduled` is when the request was due, `sent` when it was issued,
    `written` when its bytes were handed over, `first` when the first byte of the answer came."""

    __slots__ = (
        "first",
        "index",
        "is_feedback",
        "request",
        "scheduled",
        "sent",
        "traffic",
        "upload",
        "waited",
        "written",
    )

    def __init__(
        self, index: int, traffic: int, request: Request, scheduled: float, upload: float | None = None
    ) -> None:
        self.index = index
        self.traffic = traffic
        self.request = request
        self.scheduled = scheduled
        self.upload = upload
        self.sent = self.written = self.first = 0.0
        self.waited = False
        self.is_feedback = False


# What a call came to: outcome, body, and the length of the body's JSON part where the answer says one.
Done = Callable[[Call, int, bytes, int | None], None]


class Transport(Protocol):
    """Carries calls. `start` never blocks; `done` is called exactly once per call, from the event loop."""

    done: Done

    def start(self, call: Call) -> None:
        """Starts a call."""
        ...

    @property
    def in_flight(self) -> int:
        """Calls that were started and are not done."""
        ...

    async def close(self) -> None:
        """Ends what is still in flight as unfinished."""
