"""One timer for many deadlines."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

ALARM_SECONDS = 0.002  # shortest time between two calls: each scans the whole queue


class Alarm:
    """Calls `ring` at the earliest deadline, then sets the deadline that `ring` returns. Lives on one event loop."""

    def __init__(self, ring: Callable[[], float], clock: Callable[[], float] = time.monotonic) -> None:
        """`ring` returns the next deadline in seconds of `clock`, infinity when there is none."""
        self._ring = ring
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None
        self._at = 0.0

    def set(self, deadline: float) -> None:
        """Ensures that `ring` is called at this deadline or earlier."""
        if self._timer is not None and self._at <= deadline:
            return
        self.cancel()
        self._at = deadline
        self._timer = asyncio.get_running_loop().call_later(max(ALARM_SECONDS, deadline - self._clock()), self._go_off)

    def cancel(self) -> None:
        """Stops the timer; a later `set` starts it again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _go_off(self) -> None:
        self._timer = None
        upcoming = self._ring()
        if upcoming < float("inf"):
            self.set(upcoming)
