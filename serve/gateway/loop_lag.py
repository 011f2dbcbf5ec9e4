"""Lag of a busy event loop: how long a request waits for each of its iterations, in addition to its time in the queue."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

BEAT_SECONDS = 0.02  # interval of the timer
TURNS = 3.0  # loop iterations of a request: start of its decoding on a thread, start of its batch, end of the batch
LEAST_SECONDS = 0.004  # a smaller lag is noise: the clock's resolution and other callbacks
# Upper limit of a measurement: a longer iteration is a stall, which predicts little about the next one.
MOST_SECONDS = 0.5
WEIGHT = 0.3  # of the newest measurement in the moving average


class LoopLag:
    """Estimates the lag from the delay of a periodic timer. Lives on one event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._late = 0.0
        self._due = self._calm_until = float("inf")
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Starts the timer on the running loop."""
        self._due = self._clock() + BEAT_SECONDS
        self._calm_until = self._due + LEAST_SECONDS if self._late <= LEAST_SECONDS else 0.0
        self._timer = asyncio.get_running_loop().call_later(BEAT_SECONDS, self._beat)

    def close(self) -> None:
        """Stops the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def keeps_up(self) -> bool:
        """Whether `expected` is 0."""
        return self._clock() <= self._calm_until

    def expected(self) -> float:
        """Seconds that a request arriving now would wait for its loop iterations; 0 while the loop keeps up.

        Persistent lag delays each of the TURNS iterations; a single long iteration counts once.
        """
        late = max(self._late, self._overdue())
        return (TURNS - 1) * self._late + late if late > LEAST_SECONDS else 0.0

    def _overdue(self) -> float:
        return min(max(0.0, self._clock() - self._due), MOST_SECONDS)

    def _beat(self) -> None:
        self._late += WEIGHT * (self._overdue() - self._late)
        self.start()
