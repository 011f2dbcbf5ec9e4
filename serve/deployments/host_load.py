"""The load of a host, for autoscaling: the busy share of its engine, and the work that waits in the gateways that call it."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable

STALE_SECONDS = 2.0  # an older report of a gateway does not count


class HostLoad:
    """Used on the host's event loop; only `ran` is called from the engine's thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._reports: dict[Hashable, tuple[float, float]] = {}  # by gateway: backlog, time of the report
        self._busy = 0.0
        self._last_call = clock()

    def called(self, caller: Hashable, backlog: float) -> None:
        """Records that the gateway `caller` has `backlog` seconds of work in its queue."""
        self._reports[caller] = (backlog, self._clock())

    def ran(self, seconds: float) -> None:
        """Records that the engine ran for `seconds`."""
        self._busy += seconds

    def busy(self) -> float:
        """Share of the time since the last call in which the engine ran, from 0 to 1."""
        now = self._clock()
        share = min(1.0, self._busy / max(now - self._last_call, 1e-3))
        self._busy, self._last_call = 0.0, now
        return share

    def backlog(self) -> float:
        """Seconds of work waiting in all gateways that called recently."""
        now = self._clock()
        self._reports = {caller: report for caller, report in self._reports.items() if now - report[1] <= STALE_SECONDS}
        return sum(backlog for backlog, _ in self._reports.values())
