"""A local engine runs on its own thread, or on the event loop if switching threads takes longer than the run."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models.artifact import Artifact
from models.engines.engine import Engine
from models.engines.store.store import Store
from serve.batching.latency_curve import LatencyCurve
from serve.config.schema import ModelConfig
from serve.executors.engine_selection import build_spec
from serve.executors.engine_set import EngineSet, load_engines
from serve.executors.local import LocalExecutor
from serve.telemetry.mmap_store import MmapWriter
from serve.telemetry.recorder import Metrics
from tests.artifacts import CLASSES, SIDE, write_artifact


class RecordingEngine:
    """An engine that records the threads it runs on."""

    def __init__(self, engine: Engine, threads: list[str]) -> None:
        self.input, self.output, self._engine, self._threads = engine.input, engine.output, engine, threads

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        self._threads.append(threading.current_thread().name)
        return self._engine.run(batch)


@pytest.fixture
def engines(tmp_path: Path) -> EngineSet:
    artifact = Artifact.load(write_artifact(tmp_path / "a", "a"))
    model = ModelConfig(name="a", artifact=str(artifact.folder))
    spec, metrics = build_spec(model, artifact), Metrics(MmapWriter(tmp_path / "metrics"))
    return load_engines(model, spec, Store(tmp_path / "store"), 1, metrics)


@pytest.mark.parametrize(
    ("curve", "rows", "on_the_loop"),
    [
        (LatencyCurve((1, 64), (0.0001, 0.003)), 1, True),
        (LatencyCurve((1, 64), (0.0001, 0.003)), 64, True),
        (LatencyCurve((1, 64), (0.0003, 0.003)), 1, False),  # longer than a switch of threads
        (LatencyCurve((1, 64), (0.0001, 0.006)), 64, False),  # other requests would wait too long
        (LatencyCurve((1, 8), (0.0001, 0.0008)), 8, False),  # each row costs more than the loop's own work on it
    ],
)
def test_only_short_runs_are_on_the_event_loop(
    engines: EngineSet, curve: LatencyCurve, rows: int, on_the_loop: bool
) -> None:
    threads: list[str] = []
    recording = {form: RecordingEngine(engine, threads) for form, engine in engines._warm.engines.items()}
    engines._warm = replace(engines._warm, engines=recording, curve=curve)

    async def scenario() -> NDArray[np.float32]:
        executor = LocalExecutor(engines, "a")
        answer = await executor.run("image", np.zeros((rows, SIDE, SIDE, 1), np.uint8))
        executor.close()
        return answer

    assert asyncio.run(scenario()).shape == (rows, CLASSES)
    assert threads == [threading.current_thread().name if on_the_loop else "engine-a"]
