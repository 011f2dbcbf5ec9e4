"""The queue of an endpoint, as the data plane sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from serve.batching.results import Answer

Rows = NDArray[Any]


@dataclass(frozen=True)
class BatcherLimits:
    """`batch` rows per run, `queue` rows waiting."""

    batch: int
    queue: int


class RequestQueue(Protocol):
    """Where the rows of an endpoint wait: for an engine, or for the models that it is made of."""

    limits: BatcherLimits

    @property
    def waiting_rows(self) -> int: ...

    def admit(
        self, size: int, deadline: float, priority: int = 0, ready_in: float = 0.0, decoded: bool = False
    ) -> None: ...

    def arrival(
        self, size: int, deadline: float, priority: int = 0, ready_in: float = 0.0
    ) -> AbstractContextManager[None]: ...

    def submit(self, rows: Any, deadline: float, priority: int = 0) -> asyncio.Future[Answer]: ...

    async def close(self) -> None: ...


class MemberQueue(RequestQueue, Protocol):
    """The queue of a model that ensembles may ask, which knows how many of its rows wait for whom."""

    def waiting_rows_of(self, futures: Collection[asyncio.Future[Answer]]) -> int: ...


async def run_in_parts(
    line: RequestQueue, rows: Rows, deadline: float, priority: int, futures: list[asyncio.Future[Answer]]
) -> list[Answer]:
    """The answers to rows that may be more than a batch, in as many entries as its limit asks for.

    The entries' futures are added to `futures` while they wait. Raises what the first failing part raises.
    """
    limit = line.limits.batch
    try:
        for start in range(0, len(rows), limit):
            part = line.submit(rows[start : start + limit], deadline, priority)
            futures.append(part)  # one by one: a refused part must not lose the parts before it
        return list(await asyncio.gather(*futures))
    finally:
        for future in futures:
            if not future.cancel() and not future.cancelled():
                future.exception()  # marks a second part's failure as seen: the first has answered the request
