"""Lazy loading: a local engine is loaded by its first request and evicted when other models need its memory."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convoy.errors import ArtifactError, ConfigError, ConvoyError, NotReady, reason_of
from models.artifact import WEIGHTS, Artifact, Preprocessing
from models.engines.engine import TensorSpec
from models.engines.spec import EngineSpec
from models.engines.store.store import Store
from serve.batching.latency_curve import LatencyCurve
from serve.batching.slots import LazySlots, Slots
from serve.config.schema import ModelConfig, Settings
from serve.executors.base import EngineFacts, Executor, Form, MemoryState
from serve.executors.engine_selection import build_spec, configured_facts
from serve.executors.engine_set import load_engines
from serve.executors.local import LocalExecutor
from serve.executors.memory_budget import MemoryBudget, Resident
from serve.telemetry.definitions import EVICTIONS, LOAD_SECONDS, LOADS
from serve.telemetry.proc import resident_bytes
from serve.telemetry.recorder import Metrics

AGAIN_SECONDS = 1.0  # minimum time between a failed load and the next attempt
FIRST_GUESS = LatencyCurve((1,), (0.0,))  # until the first load: predicts no wait, so that no request is refused

Load = Callable[[LatencyCurve | None], Awaitable[LocalExecutor]]
Verify = Callable[[], Awaitable[None]]

log = logging.getLogger("convoy.memory")


class LazyExecutor:
    """A `LocalExecutor` that is in memory only while the budget has room for it. Lives on one event loop.

    Until the engine is loaded its slots grant no permits, so requests wait in the queue, with their deadlines, as for a busy
    engine. The layers above the slots therefore need no code for loading, and a load never counts as a slow run. Once the
    engine is loaded, the cost is one comparison per batch.
    """

    def __init__(
        self,
        config: ModelConfig,
        spec: EngineSpec,
        verify: Verify,
        load: Load,
        budget: MemoryBudget,
        metrics: Metrics,
    ) -> None:
        """`verify` raises ArtifactError for a changed artifact; `load` gets the latency curve of an earlier load, or None."""
        self._slots = LazySlots(self._start_load)
        self.slots: Slots = self._slots
        self.inputs: Mapping[Form, TensorSpec] = input_specs(spec.artifact.manifest.preprocessing)
        self.curve = FIRST_GUESS
        self.problem = ""  # why the last load failed
        self.on_measured: list[Callable[[LatencyCurve], None]] = []
        self.size = memory_of(spec.artifact)
        self._name = config.name
        self._absent = configured_facts(spec, "not in memory")
        self._verify = verify
        self._load = load
        self._budget = budget
        self._engine: LocalExecutor | None = None
        self._task: asyncio.Task[None] | None = None
        self._again: asyncio.TimerHandle | None = None
        self._closed = False
        self._count = partial(metrics.values, model=config.name, version=config.version)

    @property
    def loaded(self) -> bool:
        return self._engine is not None

    @property
    def facts(self) -> EngineFacts:
        return self._engine.facts if self._engine else self._absent

    @property
    def trouble(self) -> str:
        """The reason why it cannot answer; empty if it can, possibly after a load."""
        return self._engine.trouble if self._engine else self.problem

    @property
    def measured(self) -> bool:
        """Whether `curve` comes from a load, and is not the placeholder."""
        return self.curve is not FIRST_GUESS

    @property
    def memory(self) -> MemoryState:
        return MemoryState(self.loaded, self.size, self.problem)

    @property
    def resident(self) -> Resident:
        """Its size and last use, for the memory budget."""
        used = self._engine.ran_at if self._engine else 0.0
        return Resident(self._name, self.size, used, self.slots.taken > 0)

    async def run(self, form: Form, rows: NDArray[Any]) -> NDArray[np.float32]:
        """Logits [n, classes]. Raises NotReady after a failed load, or the engine's error."""
        if self._engine is None:
            raise NotReady(self.problem)
        return await self._engine.run(form, rows)

    async def load(self) -> None:
        """Loads the engine into memory; the least recently used models are evicted if needed. Raises ConvoyError."""
        async with self._budget.lock:
            if self._engine is None and not self._closed:
                await self._verify()  # first: a damaged artifact must not evict anything
                await self._budget.make_room(self.size)
                await self._load_engine()

    async def evict(self) -> None:
        """Frees the engine once its running batches have finished."""
        self._slots.shut()
        await self._slots.idle()
        self._free()
        self._count(EVICTIONS)[0] += 1
        log.info("%s was evicted from memory", self._name)

    async def probe(self) -> None:
        """Raises EngineFailed if the engine is loaded and cannot answer."""
        if self._engine is not None:
            await self._engine.probe()

    def close(self) -> None:
        self._closed = True
        self._budget.remove(self)
        self._free()
        if self._again is not None:
            self._again.cancel()

    def _start_load(self) -> None:
        if self._task is None and not self._closed:
            self._task = asyncio.get_running_loop().create_task(self._load_or_refuse())

    async def _load_or_refuse(self) -> None:
        try:
            await self.load()
        except Exception as error:
            log.warning("%s could not be loaded: %s", self._name, error, exc_info=not isinstance(error, ConvoyError))
            self._refuse(f"{self._name} could not be loaded: {reason_of(error)}")
        finally:
            self._task = None

    async def _load_engine(self) -> None:
        """Call it with the budget's lock held. Makes room again: before the load, an engine's size is only an estimate."""
        before, started = resident_bytes(os.getpid()), time.monotonic()
        engine = await self._load(self.curve if self.measured else None)
        self.size = max(self.size, resident_bytes(os.getpid()) - before)
        await self._budget.make_room(self.size)
        if self._closed:
            engine.close()
            return
        self._engine, self.problem = engine, ""
        self._budget.add(self)
        self._count(LOADS)[0] += 1
        self._count(LOAD_SECONDS)[0] += time.monotonic() - started
        engine.on_measured.append(self._take_curve)
        if self.curve != engine.curve:
            self._take_curve(engine.curve)
        self._slots.open()

    def _take_curve(self, curve: LatencyCurve) -> None:
        self.curve = curve
        for listener in self.on_measured:
            listener(curve)

    def _refuse(self, problem: str) -> None:
        """Opens the slots for AGAIN_SECONDS, so that waiting requests run and fail with `problem` instead of timing out."""
        self.problem = problem
        self._again = asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._allow_retry)
        self._slots.open()

    def _allow_retry(self) -> None:
        """The model counts as ready again: a client that waits for readiness would otherwise never trigger the retry."""
        self._slots.shut()
        self.problem = ""

    def _free(self) -> None:
        if self._engine is not None:
            self._engine.close()
            self._engine = None


async def connect_local(
    config: ModelConfig, artifact: Artifact, store: Store, threads: int, metrics: Metrics, memory: MemoryBudget | None
) -> Executor:
    """The executor of a model in this process. Raises ConfigError, ArtifactError.

    If the memory budget has no room for the engine, its first request loads it.
    """
    spec = await asyncio.to_thread(build_spec, config, artifact)

    async def start(curve: LatencyCurve | None) -> LocalExecutor:
        engines = await asyncio.to_thread(load_engines, config, spec, store, threads, metrics, curve)
        return LocalExecutor(engines, config.name)

    async def verify() -> None:
        """Verifies the artifact again: a load may happen hours after the start, which verified it first."""
        present = await asyncio.to_thread(Artifact.load, artifact.folder)
        if present.manifest != artifact.manifest:
            raise ArtifactError(f"{artifact.folder} was replaced since the start; deploy again")

    if memory is None:
        return await start(None)
    executor = LazyExecutor(config, spec, verify, start, memory, metrics)
    if memory.has_room(executor.size):
        await executor.load()
    return executor


def open_memory(settings: Settings) -> MemoryBudget | None:
    """The memory budget of a gateway; None if none is configured."""
    return MemoryBudget(int(settings.models_memory_mb * 2**20)) if settings.models_memory_mb else None


def check_memory(settings: Settings, artifacts: Mapping[str, Artifact]) -> None:
    """Raises ConfigError for a local model that needs more than the memory budget."""
    for model in settings.models:
        least = memory_of(artifacts[model.name]) / 2**20
        if model.placement == "local" and 0 < settings.models_memory_mb < least:
            raise ConfigError(
                f"{model.name} takes at least {least:.0f} MB, models_memory_mb is {settings.models_memory_mb:g}: "
                "raise it, or run the model in its own host (placement: dedicated)"
            )


def input_specs(steps: Preprocessing) -> dict[Form, TensorSpec]:
    """The inputs of an artifact's two graphs, without loading them."""
    padded = steps.size + 2 * steps.pad
    return {
        "image": TensorSpec("image", np.dtype(np.uint8), (-1, steps.size, steps.size, steps.channels)),
        "tensor": TensorSpec("input", np.dtype(np.float32), (-1, steps.channels, padded, padded)),
    }


def memory_of(artifact: Artifact) -> int:
    """The least bytes that the engines of both forms take: both graphs, and one copy of the weights for each."""
    sizes = {name: (artifact.folder / name).stat().st_size for name in artifact.manifest.files}
    return sum(sizes.values()) + sizes.get(WEIGHTS, 0)
