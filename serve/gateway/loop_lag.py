"""How late a busy event loop is: what a request waits for each of its turns, whatever the queue says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from serve.batching.pace import Pace

BEAT_SECONDS = 0.02
TURNS = 4.0  # of the loop from a request's head to its answer: its task, its batch's, the batch's end, its own end
LEAST_SECONDS = 0.004  # below, it is the clock of the loop and a neighbour's turn
MOST_SECONDS = 0.5  # that one turn counts for: a longer one is a stall, which says little of the next turn
WEIGHT = 0.3  # of the newest beat
REQUEST_SECONDS = 0.0002  # of the loop's time per answer, until it is learned
LEAST_ANSWERS = 8  # in a beat, to learn from it


class LoopLag:
    """How late the turns of the running event loop are, from a timer's own lateness and from what each turn has let in."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, cpu: Callable[[], float] = time.thread_time
    ) -> None:
        """`cpu`: seconds that the loop's thread has worked."""
        self._clock = clock
        self._cpu = cpu
        self._late = 0.0
        self._due = float("inf")
        self._timer: asyncio.TimerHandle | None = None
        self._admitted = 0  # requests that this turn has let in: the next one works on them
        self._answered = 0
        self._busy = 0.0
        self._pace = Pace(REQUEST_SECONDS)

    def start(self) -> None:
        """Begins to beat, on the running loop."""
        self._busy, self._answered = self._cpu(), 0
        self._due = self._clock() + BEAT_SECONDS
        self._timer = asyncio.get_running_loop().call_later(BEAT_SECONDS, self._beat)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def admitted(self) -> None:
        """A request was let in, whose work begins in the loop's next turn."""
        if not self._admitted:
            asyncio.get_running_loop().call_soon(self._turn)
        self._admitted += 1

    def answered(self) -> None:
        """A request was answered; what that took of the loop's time is learned."""
        self._answered += 1

    def expected(self) -> float:
        """Seconds that the turns of a request which comes now take, 0 on a loop that keeps up.

        Lag that lasts delays each of its turns; a turn that is long for once, and the work that it has let in, delay it once.
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
        else:  # what an overload taught, whose refusals cost time too, fades
            self._pace.learn(LEAST_ANSWERS, LEAST_ANSWERS * REQUEST_SECONDS)
        self.start()
