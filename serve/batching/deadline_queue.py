"""Decides which waiting rows run next. Functions of (now, state) only, without a clock or an event loop.

Earliest deadline first (Liu and Layland 1973) within a priority; 1 is the most urgent. A batch is formed immediately when an
engine slot is free: no item waits for a batch to fill.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

DEFAULT_PRIORITY = 8
NEVER = float("inf")


STEP_SECONDS = 0.01  # resolution of deadlines in a backlog


class Backlog:
    """The amount of waiting work, in total and ahead of a request of some priority and deadline.

    Under overload most requests are refused, so `ahead_of` must not scan the queue: amounts are summed by steps of
    deadlines, and all work counts as ahead of a request behind the last step.
    """

    def __init__(self) -> None:
        self.total = 0.0
        self._steps: dict[tuple[int, int], tuple[int, float]] = {}  # number of additions, sum of amounts
        self._last = (0, 0)

    def add(self, priority: int, deadline: float, amount: float) -> None:
        """Adds work. `deadline`: seconds, finite. `amount`: in any unit, as long as all calls use the same."""
        step = (priority, int(deadline / STEP_SECONDS))
        count, sum_ = self._steps.get(step, (0, 0.0))
        self._steps[step] = (count + 1, sum_ + amount)
        if step > self._last:
            self._last = step
        self.total += amount

    def remove(self, priority: int, deadline: float, amount: float) -> None:
        """Removes work that was added with the same arguments."""
        step = (priority, int(deadline / STEP_SECONDS))
        count, sum_ = self._steps[step]
        self.total -= amount
        if count > 1:
            self._steps[step] = (count - 1, sum_ - amount)
            return
        del self._steps[step]
        if not self._steps:
            self.clear()  # drops the rounding error of the sums

    def clear(self) -> None:
        """Removes all work."""
        self._steps.clear()
        self.total, self._last = 0.0, (0, 0)

    def ahead_of(self, priority: int, deadline: float) -> float:
        """The amount of work ahead of a new request, including work with an equal deadline."""
        step = (priority, int(deadline / STEP_SECONDS))
        if step >= self._last:
            return self.total
        return sum([amount for other, (_, amount) in self._steps.items() if other <= step])


class Queued(Protocol):
    """The properties of an item that the queue needs."""

    @property
    def size(self) -> int: ...  # rows
    @property
    def priority(self) -> int: ...
    @property
    def deadline(self) -> float: ...  # seconds on the caller's clock
    @property
    def most(self) -> int: ...  # rows of the largest run that answers it in time
    @property
    def gone(self) -> bool: ...  # answered, failed or cancelled


E = TypeVar("E", bound=Queued)


@dataclass
class DeadlineQueue(Generic[E]):
    """Items that wait for an engine slot, and the sum of their rows."""

    rows: int = 0
    _backlog: Backlog = field(default_factory=Backlog)
    _heap: list[tuple[int, float, int, E]] = field(default_factory=list)
    _arrivals: int = 0

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[E]:
        """The items in no particular order, including gone ones."""
        return (element[3] for element in self._heap)

    def push(self, item: E) -> None:
        """Adds an item. Items of equal priority and deadline keep their order of arrival."""
        self._arrivals += 1
        heapq.heappush(self._heap, (item.priority, item.deadline, self._arrivals, item))
        self.rows += item.size
        self._backlog.add(item.priority, item.deadline, item.size)

    def take(self, now: float, limit: int, predict: Callable[[int], float]) -> tuple[list[E], list[E]]:
        """Removes and returns the next batch of at most `limit` rows, and the items that would be late.

        `predict` maps rows to the seconds of their run. Items are dropped on that estimate only if more rows wait than
        fit into one run: otherwise no run would ever correct a wrong estimate. The head of the queue is never passed over
        for a smaller item behind it, so no item starves.
        """
        batch: list[E] = []
        late: list[E] = []
        gone: list[E] = []
        taken, most, waiting = 0, limit, self.rows
        heap = self._heap
        while heap:
            item = heap[0][3]
            size = item.size
            if item.gone:
                gone.append(heapq.heappop(heap)[3])
                waiting -= size
                continue
            fitting = min(limit, max(item.most, size))
            expected = predict(fitting) if waiting > fitting else 0.0
            if item.deadline < now + expected:
                late.append(heapq.heappop(heap)[3])
                waiting -= size
                continue
            if taken and taken + size > min(most, fitting):
                break
            batch.append(heapq.heappop(heap)[3])
            taken, most = taken + size, min(most, fitting)
        self._forget(batch, late, gone)
        return batch, late

    def _forget(self, *removed: list[E]) -> None:
        if not self._heap:
            self.rows = 0
            self._backlog.clear()
            return
        for items in removed:
            for item in items:
                self.rows -= item.size
                self._backlog.remove(item.priority, item.deadline, item.size)

    def ahead_of(self, priority: int, deadline: float) -> int:
        """Rows ahead of an item of this priority and deadline."""
        return int(self._backlog.ahead_of(priority, deadline))

    def expire(self, now: float) -> list[E]:
        """Removes and returns the items whose deadline has passed; also removes those that are gone."""
        expired = [element[3] for element in self._heap if element[1] < now and not element[3].gone]
        for _, deadline, _, item in self._heap:
            if deadline < now or item.gone:
                self._backlog.remove(item.priority, item.deadline, item.size)
        self._heap = [element for element in self._heap if element[1] >= now and not element[3].gone]
        heapq.heapify(self._heap)
        self.rows = sum(element[3].size for element in self._heap)
        return expired

    def next_deadline(self) -> float:
        """The earliest deadline in the queue; NEVER when it is empty."""
        return min((element[1] for element in self._heap if not element[3].gone), default=NEVER)
