"""An engine for tests of the batcher, without a model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serve.batching.batcher import Batcher
from serve.batching.latency_curve import LatencyCurve
from serve.batching.line import BatcherLimits
from serve.batching.slots import Slots

CURVE = LatencyCurve((1, 8), (0.001, 0.004))
FOREVER = 1e12
POISON = -1.0

Rows = NDArray[Any]


class Engine:
    """Returns its input as logits. A row of POISON fails its whole batch. Runs wait for `gate`."""

    def __init__(self, limit: int, slots: int) -> None:
        self.limit, self.slots = limit, slots
        self.running = 0
        self.batches: list[Rows] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def run(self, rows: Rows) -> NDArray[np.float32]:
        assert len(rows) <= self.limit
        self.running += 1
        assert self.running <= self.slots
        try:
            self.batches.append(rows)
            await asyncio.sleep(0)
            await self.gate.wait()
            if (rows == POISON).any():
                raise RuntimeError("secret detail")
            return rows.astype(np.float32)
        finally:
            self.running -= 1


def make(limit: int = 8, slots: int = 1, queue: int = 10_000) -> tuple[Engine, Batcher]:
    engine = Engine(limit, slots)
    return engine, Batcher(engine.run, Slots(slots), BatcherLimits(limit, queue), CURVE)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 30))


def rows(*values: float) -> Rows:
    return np.array(values, np.float32)[:, np.newaxis]
