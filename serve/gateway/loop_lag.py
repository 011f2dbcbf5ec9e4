"""Lag of a busy event loop: how long a request waits for each of its iterations, in addition to its time in the queue."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from serve.batching.pace import Pace

BEAT_SECONDS = 0.02  # interval of the timer
TURNS = 4.0  # loop iterations of a request: start of its task, start of its batch, end of the batch, end of the task
LEAST_SECONDS = 0.004  # a smaller lag is noise: the clock's resolution and other callbacks
# Upper limit of a measurement: a longer iteration is a stall, which predicts little about the next one.
MOST_SECONDS = 0.5
WEIGHT = 0.3  # of the newest measurement in the moving average
REQUEST_SECONDS = 0.0002  # first estimate of the loop's time per answer
LEAST_ANSWERS = 8  # in one interval of the timer; fewer do not give a reliable time per answer


class LoopLag:
    """Estimates the lag from the delay of a periodic timer and from the requests that the present iteration has admitted."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, cpu: Callable[[], float] = time.thread_time
    ) -> None:
        """`cpu` returns the CPU seconds of the loop's thread."""
        self._clock = clock
        self._cpu = cpu
        self._late = 0.0
        self._due = float("inf")
        self._timer: asyncio.TimerHandle | None = None
        self._admitted = 0  # requests admitted in this iteration; the next iteration starts their tasks
        self._answered = 0
        self._busy = 0.0
        self._pace = Pace(REQUEST_SECONDS)

    def start(self) -> None:
        """Starts the timer on the running loop."""
        self._busy, self._answered = self._cpu(), 0
        self._due = self._clock() + BEAT_SECONDS
        self._timer = asyncio.get_running_loop().call_later(BEAT_SECONDS, self._beat)

    def close(self) -> None:
        """Stops the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def admitted(self) -> None:
        """Counts an admitted request. Its work starts in the loop's next iteration."""
        if not self._admitted:
            asyncio.get_running_loop().call_soon(self._turn)
        self._admitted += 1

    def answered(self) -> None:
        """Counts an answer, to estimate the loop's time per answer."""
        self._answered += 1

    def expected(self) -> float:
        """Seconds that a request arriving now would wait for its loop iterations; 0 while the loop keeps up.

        Persistent lag delays each of the TURNS iterations. A single long iteration, and the requests admitted in it, count once.
        """
        late = max(self._late, self._overdue()) + self._pace.predict(self._admitted)
        return (TURNS - 1) * self._late + late if late > LEAST_SECONDS else 0.0

    def _turn(self) -> None:
        self._admitted = 0

    def _overdue(self) -> float:
        return min(max(0.0, self._clock() - self._due), MOST_SECONDS)

    def _beat(self) -> None:
        self._late += WEIGHT * (self._overdue() - self._late)
        if self._answered >= LEAST_ANSWERS:
            self._pace.learn(self._answered, self._cpu() - self._busy)
        else:  # returns to the first estimate after an overload, in which refusals took part of the CPU time
            self._pace.learn(LEAST_ANSWERS, LEAST_ANSWERS * REQUEST_SECONDS)
        self.start()
