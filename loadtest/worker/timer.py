"""An alarm with a timerfd (timerfd_create(2)): event loops round their own timers up to a millisecond."""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
import sys
from collections.abc import Callable
from time import monotonic

CLOCK_MONOTONIC = 1
TFD_NONBLOCK_CLOEXEC = os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0)
TFD_TIMER_ABSTIME = 1
EARLIEST = 1e-9  # a timerfd set to 0 never fires


class Alarm:
    """Calls `ring` on the event loop at each time that is set, one at a time; without timerfd by a timer of the loop."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None
        self._descriptor = -1
        if sys.platform == "linux":
            self._libc = ctypes.CDLL(None, use_errno=True)
            self._descriptor = self._libc.timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK_CLOEXEC)
        if self._descriptor >= 0:
            self._loop.add_reader(self._descriptor, self._fired)

    def set(self, when: float) -> None:
        """Sets the time, in seconds of `time.monotonic()`."""
        if self._descriptor < 0:
            self._handle = self._loop.call_later(max(0.0, when - monotonic()), self._ring)
            return
        seconds, rest = divmod(max(when, EARLIEST), 1.0)
        spec = struct.pack("qqqq", 0, 0, int(seconds), int(rest * 1e9) or 1)
        self._libc.timerfd_settime(self._descriptor, TFD_TIMER_ABSTIME, spec, None)

    def _fired(self) -> None:
        try:
            os.read(self._descriptor, 8)
        except BlockingIOError:  # it was set again after it fired
            return
        self._ring()

    def close(self) -> None:
        """Cancels the alarm and closes its descriptor."""
        if self._handle is not None:
            self._handle.cancel()
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
