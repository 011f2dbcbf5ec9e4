"""A wall clock that is set back, and what it would do to Ray Serve.

Serve's controller times its health checks by the wall clock: once that is set back it would look after no replica until the old
time comes again, and a dead one would stay dead. A controller that begins anew does not remember the old time, and its end
costs no request.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

import ray

CONTROLLER, NAMESPACE = "SERVE_CONTROLLER_ACTOR", "serve"  # as `ray list actors` shows it
LOOK_SECONDS = 1.0
BACK_SECONDS = 5.0  # less is within what a health check takes anyway

log = logging.getLogger("convoy.steward")


class ClockWatchdog:
    """Knows whether it was set back."""

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic) -> None:
        self._wall, self._steady = wall, steady
        self._ahead = wall() - steady()

    def set_back(self) -> bool:
        """Whether it was, by more than `BACK_SECONDS` since the last question."""
        before, self._ahead = self._ahead, self._wall() - self._steady()
        return before - self._ahead > BACK_SECONDS


async def watch(clock: ClockWatchdog, renew: Callable[[], None]) -> None:
    """Calls `renew` whenever the clock was set back."""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        if clock.set_back():
            log.warning("the wall clock was set back: Serve's controller begins anew")
            renew()


def renew_controller() -> None:
    """Ends Serve's controller; Ray starts it again."""
    with contextlib.suppress(ValueError):  # it is being started anew already
        ray.kill(ray.get_actor(CONTROLLER, namespace=NAMESPACE), no_restart=False)
