"""A request in flight, and the interface of the transports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from loadtest.wire.requests import Request


class Call:
    """One request in flight. Times are in seconds on the monotonic clock; 0 means not yet.

    The request was due at `scheduled` and issued at `sent`; its bytes were handed to the transport at `written`, and the
    first byte of the answer arrived at `first`. `waited`: it had to wait for a free connection. `upload`: bytes per second.
    """

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


# Receives a finished call: the call, its outcome, the body, and the length of the body's JSON part if the answer has one.
Done = Callable[[Call, int, bytes, int | None], None]


class Transport(Protocol):
    """Sends calls. `start` never blocks; `done` is called exactly once per call, on the event loop."""

    done: Done

    def start(self, call: Call) -> None:
        """Sends a call now, or as soon as a connection is free."""

    @property
    def in_flight(self) -> int:
        """Number of calls that have started and not ended."""

    async def close(self) -> None:
        """Ends the calls in flight with the outcome UNFINISHED."""
