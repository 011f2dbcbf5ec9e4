"""What a host knows of the work for it: how long its engine ran, and what waits in the gateways that call it."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable

SILENT_SECONDS = 2.0  # what a gateway said earlier no longer counts


class HostLoad:
    """Lives on the host's event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told: dict[Hashable, tuple[float, float]] = {}
        self._busy = 0.0
        self._asked = clock()

    def called(self, caller: Hashable, backlog: float) -> None:
        """A gateway has `backlog` seconds of work in its line."""
        self._told[caller] = (backlog, self._clock())

    def ran(self, seconds: float) -> None:
        self._busy += seconds

    def busy(self) -> float:
        """Share of the time since the last question in which the engine ran, from 0 to 1."""
        now = self._clock()
        share = min(1.0, self._busy / max(now - self._asked, 1e-3))
        self._busy, self._asked = 0.0, now
        return share

    def backlog(self) -> float:
        """Seconds of work that wait, over all gateways that called lately."""
        now = self._clock()
        self._told = {one: entry for one, entry in self._told.items() if now - entry[1] <= SILENT_SECONDS}
        return sum(backlog for backlog, _ in self._told.values())
