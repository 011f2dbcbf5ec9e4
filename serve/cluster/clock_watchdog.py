"""Restarts Ray Serve's controller when the wall clock is set back.

The controller schedules its health checks by the wall clock. After a step back it would check no replica, and replace no dead
one, until the clock reached the old time again. A restarted controller does not know the old time, and the restart costs no
request.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

import ray

CONTROLLER, NAMESPACE = "SERVE_CONTROLLER_ACTOR", "serve"  # as `ray list actors` shows it
CHECK_SECONDS = 1.0
BACK_SECONDS = 5.0  # a smaller step delays health checks by less than their timeout

log = logging.getLogger("convoy.steward")  # users filter logs by this name


class ClockWatchdog:
    """Compares the wall clock with a steady one."""

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic) -> None:
        self._wall, self._steady = wall, steady
        self._ahead = wall() - steady()

    def set_back(self) -> bool:
        """Whether the wall clock was set back by more than `BACK_SECONDS` since the last call."""
        before, self._ahead = self._ahead, self._wall() - self._steady()
        return before - self._ahead > BACK_SECONDS


async def watch(clock: ClockWatchdog, renew: Callable[[], None]) -> None:
    """Calls `renew` whenever the clock was set back; runs until it is cancelled."""
    while True:
        await asyncio.sleep(CHECK_SECONDS)
        if clock.set_back():
            log.warning("the wall clock was set back: restarting Serve's controller")
            renew()


def renew_controller() -> None:
    """Kills Serve's controller; Ray restarts it."""
    with contextlib.suppress(ValueError):  # Ray is already restarting it
        ray.kill(ray.get_actor(CONTROLLER, namespace=NAMESPACE), no_restart=False)
