"""The queue of an endpoint, as the data plane uses it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from serve.batching.queue_item import QueueItem
from serve.batching.results import Answer

Rows = NDArray[Any]


@dataclass(frozen=True)
class BatcherLimits:
    """The maximum numbers of rows in a run, and of waiting rows."""

    batch: int
    queue: int


class RequestQueue(Protocol):
    """The queue in which the rows of an endpoint wait for an engine, or for the members of an ensemble."""

    limits: BatcherLimits

    @property
    def waiting_rows(self) -> int:
        """Rows in the queue, without running ones."""
        ...

    def admit(
        self, size: int, deadline: float, priority: int = 0, ready_in: float = 0.0, decoded: bool = False
    ) -> None:
        """Decides whether `size` more rows can be answered in time. Arguments and errors as of `Batcher.admit`."""
        ...

    def arrival(
        self, size: int, deadline: float, priority: int = 0, ready_in: float = 0.0
    ) -> AbstractContextManager[None]:
        """Admits rows that are still being decoded; until the block ends they count as waiting."""
        ...

    def submit(self, rows: Any, deadline: float, priority: int = 0) -> asyncio.Future[Answer]:
        """Queues admitted rows; the future receives their `Answer`."""
        ...

    async def close(self) -> None:
        """Fails the waiting rows and waits for the running ones."""
        ...


class MemberQueue(RequestQueue, Protocol):
    """The queue of a model. It can count the waiting rows of each ensemble that the model is a member of."""

    def submit(self, rows: Any, deadline: float, priority: int = 0) -> QueueItem:
        """Queues admitted rows; the item receives their `Answer`."""
        ...

    def waiting_rows_of(self, futures: Collection[asyncio.Future[Answer]]) -> int:
        """Rows in the queue that belong to these futures. Scans the whole queue, so call it for metrics only."""
        ...


async def run_in_parts(
    queue: RequestQueue, rows: Rows, deadline: float, priority: int, futures: list[asyncio.Future[Answer]]
) -> list[Answer]:
    """Answers any number of rows [n, …], in queue items of at most the queue's batch limit.

    The items' futures are appended to `futures`, so that a caller can cancel them. Raises the error of the first item
    that fails.
    """
    limit = queue.limits.batch
    try:
        for start in range(0, len(rows), limit):
            future = queue.submit(rows[start : start + limit], deadline, priority)
            # One by one: if an item is refused, the earlier ones must be in the list, to be cancelled.
            futures.append(future)
        return list(await asyncio.gather(*futures))
    finally:
        for future in futures:
            if not future.cancel() and not future.cancelled():
                future.exception()  # retrieves a second error, or asyncio logs it; the request fails with the first
