"""One timer for many deadlines."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

ALARM_SECONDS = 0.002  # deadlines are noticed this much late at most; a ring looks at all that waits


class Alarm:
    """Calls `ring` at the earliest deadline that was set; what it returns is set next. Lives on one event loop."""

    def __init__(self, ring: Callable[[], float], clock: Callable[[], float] = time.monotonic) -> None:
        """`ring` returns the next deadline in seconds of `clock`, infinity where there is none."""
        self._ring = ring
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None
        self._at = 0.0

    def set(self, deadline: float) -> None:
        """Rings at this deadline at the latest."""
        if self._timer is not None and self._at <= deadline:
            return
        self.cancel()
        self._at = deadline
        self._timer = asyncio.get_running_loop().call_later(max(ALARM_SECONDS, deadline - self._clock()), self._go_off)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _go_off(self) -> None:
        self._timer = None
        upcoming = self._ring()
        if upcoming < float("inf"):
            self.set(upcoming)
