"""A local engine that is loaded when the first request wants it and may leave the memory when others need the room."""

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

AGAIN_SECONDS = 1.0  # an engine that could not be loaded is tried again after so long at the earliest
FIRST_GUESS = LatencyCurve((1,), (0.0,))  # refuses nobody and batches nothing: before the first load nothing is known

Load = Callable[[LatencyCurve | None], Awaitable[LocalExecutor]]
Verify = Callable[[], Awaitable[None]]

log = logging.getLogger("convoy.memory")


class LazyExecutor:
    """Holds a `LocalExecutor` while there is room. Lives on one event loop.

    An absent engine has no permits, so requests wait in their lines, deadlines included, while one task loads it: above
    the slots nothing knows of it, and loading is not taken for running. A loaded engine costs one comparison per batch.
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
        """`verify` raises when the artifact has changed; `load` gets the latency curve that was measured before, if any."""
        self._slots = LazySlots(self._fetch)
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
        """Why it cannot answer; empty when it can, be it after a load."""
        return self._engine.trouble if self._engine else self.problem

    @property
    def measured(self) -> bool:
        """Whether `curve` is more than a guess."""
        return self.curve is not FIRST_GUESS

    @property
    def memory(self) -> MemoryState:
        return MemoryState(self.loaded, self.size, self.problem)

    @property
    def resident(self) -> Resident:
        used = self._engine.ran_at if self._engine else 0.0
        return Resident(self._name, self.size, used, self.slots.taken > 0)

    async def run(self, form: Form, rows: NDArray[Any]) -> NDArray[np.float32]:
        """Raises NotReady after a load that failed, besides what the engine raises."""
        if self._engine is None:
            raise NotReady(self.problem)
        return await self._engine.run(form, rows)

    async def load(self) -> None:
        """Brings the engine into memory; the least recently used ones make room. Raises ConvoyError."""
        async with self._budget.lock:
            if self._engine is None and not self._closed:
                await self._verify()  # before others leave for what cannot come
                await self._budget.make_room(self.size)
                await self._enter()

    async def leave(self) -> None:
        """Frees the engine, as soon as what it runs has finished."""
        self._slots.shut()
        await self._slots.idle()
        self._free()
        self._count(EVICTIONS)[0] += 1
        log.info("%s has left the memory", self._name)

    async def probe(self) -> None:
        """Raises when an engine that is loaded cannot answer."""
        if self._engine is not None:
            await self._engine.probe()

    def close(self) -> None:
        self._closed = True
        self._budget.remove(self)
        self._free()
        if self._again is not None:
            self._again.cancel()

    def _fetch(self) -> None:
        if self._task is None and not self._closed:
            self._task = asyncio.get_running_loop().create_task(self._bring())

    async def _bring(self) -> None:
        try:
            await self.load()
        except Exception as error:
            log.warning("%s could not be loaded: %s", self._name, error, exc_info=not isinstance(error, ConvoyError))
            self._refuse(f"{self._name} could not be loaded: {reason_of(error)}")
        finally:
            self._task = None

    async def _enter(self) -> None:
        """Loads under the memory's lock. What it takes is known for certain only afterwards."""
        before, started = resident_bytes(os.getpid()), time.monotonic()
        engine = await self._load(self.curve if self.measured else None)
        self.size = max(self.size, resident_bytes(os.getpid()) - before)
        await self._budget.make_room(self.size)
        if self._closed:
            engine.close()
            return
        self._engine, self.problem = engine, ""
        self._budget.enter(self)
        self._count(LOADS)[0] += 1
        self._count(LOAD_SECONDS)[0] += time.monotonic() - started
        engine.on_measured.append(self._measured)
        if self.curve != engine.curve:
            self._measured(engine.curve)
        self._slots.open()

    def _measured(self, curve: LatencyCurve) -> None:
        self.curve = curve
        for tell in self.on_measured:
            tell(curve)

    def _refuse(self, problem: str) -> None:
        """Gives permits for a while, so that whoever waits is told; then it may be tried again."""
        self.problem = problem
        self._again = asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._forgive)
        self._slots.open()

    def _forgive(self) -> None:
        """Ready again: who waits for a ready model before it asks would otherwise never have it tried."""
        self._slots.shut()
        self.problem = ""

    def _free(self) -> None:
        if self._engine is not None:
            self._engine.close()
            self._engine = None


async def connect_local(
    config: ModelConfig, artifact: Artifact, store: Store, threads: int, metrics: Metrics, memory: MemoryBudget | None
) -> Executor:
    """A model's engine in this process: now, or without room for it at the first request. Raises ArtifactError."""
    spec = await asyncio.to_thread(build_spec, config, artifact)

    async def start(curve: LatencyCurve | None) -> LocalExecutor:
        engines = await asyncio.to_thread(load_engines, config, spec, store, threads, metrics, curve)
        return LocalExecutor(engines, config.name)

    async def verify() -> None:
        """A load may be hours after the artifact was verified."""
        present = await asyncio.to_thread(Artifact.load, artifact.folder)
        if present.manifest != artifact.manifest:
            raise ArtifactError(f"{artifact.folder} is another artifact than at the start; deploy again")

    if memory is None:
        return await start(None)
    executor = LazyExecutor(config, spec, verify, start, memory, metrics)
    if memory.has_room(executor.size):
        await executor.load()
    return executor


def open_memory(settings: Settings) -> MemoryBudget | None:
    """The budget of a gateway; None: there is none."""
    return MemoryBudget(int(settings.models_memory_mb * 2**20)) if settings.models_memory_mb else None


def check_memory(settings: Settings, artifacts: Mapping[str, Artifact]) -> None:
    """Raises ConfigError for a local model that can never fit."""
    for model in settings.models:
        least = memory_of(artifacts[model.name]) / 2**20
        if model.placement == "local" and 0 < settings.models_memory_mb < least:
            raise ConfigError(
                f"{model.name} takes at least {least:.0f} MB, models_memory_mb is {settings.models_memory_mb:g}: "
                "give more, or place it in a host of its own (placement: dedicated)"
            )


def input_specs(steps: Preprocessing) -> dict[Form, TensorSpec]:
    """What an artifact's graphs take, without loading them."""
    padded = steps.size + 2 * steps.pad
    return {
        "image": TensorSpec("image", np.dtype(np.uint8), (-1, steps.size, steps.size, steps.channels)),
        "tensor": TensorSpec("input", np.dtype(np.float32), (-1, steps.channels, padded, padded)),
    }


def memory_of(artifact: Artifact) -> int:
    """The least that an artifact's two engines take: their graphs, and the weights once in each."""
    sizes = {name: (artifact.folder / name).stat().st_size for name in artifact.manifest.files}
    return sum(sizes.values()) + sizes.get(WEIGHTS, 0)
