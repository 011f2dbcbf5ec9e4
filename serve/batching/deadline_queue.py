"""Which waiting rows run next: pure functions of (now, state), no clock, no event loop.

Order is earliest deadline first within a priority (1 is the most urgent). A batch is taken whole when an engine slot is
free, so nothing waits for a batch to fill, and whoever waits fills the next one.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

DEFAULT_PRIORITY = 8
NEVER = float("inf")


STEP_SECONDS = 0.01  # deadlines that are nearer to each other than this count as one


class Backlog:
    """How much waits, and how much of it goes before a request, by priority and deadline.

    Under overload most requests ask only, so a question must not look at all that waits: amounts are kept by steps of
    deadlines, and what comes last of all has everything before it.
    """

    def __init__(self) -> None:
        self.total = 0.0
        self._steps: dict[tuple[int, int], tuple[int, float]] = {}  # how many, and their amounts
        self._last = (0, 0)

    def add(self, priority: int, deadline: float, amount: float) -> None:
        """`amount` more waits, in whatever unit."""
        step = (priority, int(deadline / STEP_SECONDS))
        count, sum_ = self._steps.get(step, (0, 0.0))
        self._steps[step] = (count + 1, sum_ + amount)
        self._last = max(self._last, step)
        self.total += amount

    def remove(self, priority: int, deadline: float, amount: float) -> None:
        """What was added waits no more."""
        step = (priority, int(deadline / STEP_SECONDS))
        count, sum_ = self._steps[step]
        self.total -= amount
        if count > 1:
            self._steps[step] = (count - 1, sum_ - amount)
            return
        del self._steps[step]
        if not self._steps:
            self.total, self._last = 0.0, (0, 0)  # rounding does not add up

    def ahead_of(self, priority: int, deadline: float) -> float:
        """What goes before a request that comes now."""
        step = (priority, int(deadline / STEP_SECONDS))
        if step >= self._last:
            return self.total
        return sum([amount for one, (_, amount) in self._steps.items() if one <= step])


class Queued(Protocol):
    """What the line must know of an entry."""

    @property
    def size(self) -> int: ...  # rows
    @property
    def priority(self) -> int: ...
    @property
    def deadline(self) -> float: ...  # seconds on the caller's clock
    @property
    def most(self) -> int: ...  # rows that a run may have for this entry to be answered in time
    @property
    def gone(self) -> bool: ...  # answered or cancelled meanwhile


E = TypeVar("E", bound=Queued)


@dataclass
class DeadlineQueue(Generic[E]):
    """Entries that wait for a slot, with the number of rows they hold."""

    rows: int = 0
    _backlog: Backlog = field(default_factory=Backlog)
    _heap: list[tuple[int, float, int, E]] = field(default_factory=list)
    _arrivals: int = 0

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[E]:
        """The items, in no order; some may be gone."""
        return (item[3] for item in self._heap)

    def push(self, entry: E) -> None:
        self._arrivals += 1
        heapq.heappush(self._heap, (entry.priority, entry.deadline, self._arrivals, entry))
        self.rows += entry.size
        self._backlog.add(entry.priority, entry.deadline, entry.size)

    def take(self, now: float, limit: int, predict: Callable[[int], float]) -> tuple[list[E], list[E]]:
        """The next batch of at most `limit` rows, and the entries found to be too late for their run.

        `predict` says how many seconds a run of so many rows takes. Only where more waits than one run takes is an entry
        refused on that estimate: otherwise a wrong estimate would never be corrected by a run. The head of the line is
        never passed over for a smaller entry behind it, so nothing starves.
        """
        batch: list[E] = []
        late: list[E] = []
        taken, most = 0, limit
        heap = self._heap
        while heap:
            entry = heap[0][3]
            if entry.gone:
                self._pop()
                continue
            fitting = min(limit, max(entry.most, entry.size))
            expected = predict(fitting) if self.rows + taken > fitting else 0.0
            if entry.deadline < now + expected:
                late.append(self._pop())
                continue
            if taken and taken + entry.size > min(most, fitting):
                break
            batch.append(self._pop())
            taken, most = taken + entry.size, min(most, fitting)
        return batch, late

    def ahead_of(self, priority: int, deadline: float) -> int:
        """Rows that go before an entry of this priority and deadline."""
        return int(self._backlog.ahead_of(priority, deadline))

    def expire(self, now: float) -> list[E]:
        """Removes and returns the entries whose deadline has passed; forgets those that are gone."""
        expired = [item[3] for item in self._heap if item[1] < now and not item[3].gone]
        for _, deadline, _, entry in self._heap:
            if deadline < now or entry.gone:
                self._backlog.remove(entry.priority, entry.deadline, entry.size)
        self._heap = [item for item in self._heap if item[1] >= now and not item[3].gone]
        heapq.heapify(self._heap)
        self.rows = sum(item[3].size for item in self._heap)
        return expired

    def next_deadline(self) -> float:
        """The earliest deadline in the line, NEVER when it is empty."""
        return min((item[1] for item in self._heap if not item[3].gone), default=NEVER)

    def _pop(self) -> E:
        entry = heapq.heappop(self._heap)[3]
        self.rows -= entry.size
        self._backlog.remove(entry.priority, entry.deadline, entry.size)
        return entry
