"""Runs batches on an engine in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.engines.engine import TensorSpec
from serve.batching.latency_curve import LatencyCurve
from serve.batching.slots import Slots
from serve.executors.base import EngineFacts, Form
from serve.executors.engine_set import EngineSet
from serve.worker_threads import WorkThreads

# A run takes place on the event loop if passing it to the engine's thread and back would take as long, and if each row takes less
# than the loop's own work on a request. All other requests wait for it, so it may take at most SHORT_SECONDS.
HOP_SECONDS = 0.0001
ROW_SECONDS = 0.00006
SHORT_SECONDS = 0.005


class LocalExecutor:
    """An engine in this process. Runs take place on its own thread, where they release the GIL; short ones on the loop."""

    measured = loaded = True
    memory = None

    def __init__(self, engines: EngineSet, name: str) -> None:
        self.slots = Slots(1)
        self.inputs: Mapping[Form, TensorSpec] = engines.inputs
        self.on_measured: list[Callable[[LatencyCurve], None]] = []
        self._engines = engines
        self._thread = WorkThreads(f"engine-{name}")
        engines.complete(self._announce_curve)

    @property
    def curve(self) -> LatencyCurve:
        return self._engines.curve

    @property
    def facts(self) -> EngineFacts:
        return self._engines.facts

    @property
    def ran_at(self) -> float:
        """When it last ran (monotonic seconds)."""
        return self._engines.ran_at

    @property
    def trouble(self) -> str:
        """Why it cannot answer; empty if no reason is known."""
        return self._engines.trouble

    async def run(self, form: Form, rows: NDArray[Any]) -> NDArray[np.float32]:
        if self.curve.predict(len(rows)) <= min(HOP_SECONDS + len(rows) * ROW_SECONDS, SHORT_SECONDS):
            return self._engines.run(form, rows)
        return await self._thread.run(self._engines.run, form, rows)

    async def probe(self) -> None:
        """Raises EngineFailed if the engine cannot answer."""
        await self._thread.run(self._engines.probe)

    def close(self) -> None:
        self._thread.close()
        self._engines.close()

    def _announce_curve(self) -> None:
        for listener in self.on_measured:
            listener(self.curve)
