"""Drivers: start requests at scheduled times (open loop) or on completion of earlier ones (closed loop)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Protocol

from loadtest.arrivals import Due
from loadtest.worker.timer import Alarm

Issue = Callable[[Due, float], None]
AT_ONCE = 64  # requests started before the event loop reads answers again
GIVES_UP_S = 1.0  # time after the end of the schedule in which overdue requests are still started


class Driver(Protocol):
    """Decides when requests start. `issued` counts them; `ended` is set when no more will come.

    `unsent` is True if some were due but never started, because the driver was too far behind.
    """

    issued: int
    unsent: bool
    ended: asyncio.Event

    def begin(self, start: float, end: float) -> None:
        """Starts the schedule, from `start` to `end` on the monotonic clock."""

    def completed(self) -> None:
        """Called when a request has ended."""

    def stop(self) -> None:
        """Starts no further requests."""

    def close(self) -> None:
        """Frees the timer."""


class OpenDriver:
    """Starts each request at its time, independently of earlier ones; overdue requests start at once."""

    def __init__(self, schedule: Iterator[Due], issue: Issue) -> None:
        self._schedule = schedule
        self._issue = issue
        self._start = self._end = 0.0
        self._next: Due | None = None
        self.issued = 0
        self.unsent = False
        self.ended = asyncio.Event()
        self._alarm = Alarm(self._ring)

    def begin(self, start: float, end: float) -> None:
        self._start, self._end = start, end
        self._next = next(self._schedule, None)
        self._set()

    def _ring(self) -> None:
        now = monotonic()
        if now > self._end + GIVES_UP_S:
            self.unsent = True
            self.stop()
            return
        for _ in range(AT_ONCE):
            if self._next is None or self._start + self._next.time > now:
                break
            due, self._next = self._next, next(self._schedule, None)
            self.issued += 1
            self._issue(due, self._start + due.time)
        self._set()

    def _set(self) -> None:
        if self._next is None:
            self.ended.set()
        else:
            self._alarm.set(self._start + self._next.time)

    def completed(self) -> None:
        """In open loop an answer starts no request."""

    def stop(self) -> None:
        self._next = None
        self.ended.set()

    def close(self) -> None:
        self._alarm.close()


class ClosedDriver:
    """Keeps `concurrency` requests in flight; each answer starts the next, `think_s` later."""

    def __init__(self, schedule: Iterator[Due], issue: Issue, concurrency: int, think_s: float) -> None:
        self._schedule = schedule
        self._issue = issue
        self._concurrency = concurrency
        self._think_s = think_s
        self._end = 0.0
        self._loop = asyncio.get_running_loop()
        self.issued = 0
        self.unsent = False
        self.ended = asyncio.Event()

    def begin(self, start: float, end: float) -> None:
        self._end = end
        self._loop.call_later(max(0.0, end - monotonic()), self.ended.set)
        for _ in range(self._concurrency):
            self._loop.call_later(max(0.0, start - monotonic()), self._next)

    def completed(self) -> None:
        # Deferred even without think time: a connection that fails at once would otherwise recurse.
        if self._think_s:
            self._loop.call_later(self._think_s, self._next)
        else:
            self._loop.call_soon(self._next)

    def _next(self) -> None:
        now = monotonic()
        if now < self._end:
            self.issued += 1
            self._issue(next(self._schedule), now)

    def stop(self) -> None:
        self._end = 0.0
        self.ended.set()

    def close(self) -> None:
        self._end = 0.0
