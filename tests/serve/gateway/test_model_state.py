"""The state machine of a model: for any changes and any results of loads it settles, and frees every engine that it drops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy.errors import ArtifactError
from models.artifact import Manifest, Preprocessing
from models.engines.engine import TensorSpec
from serve.config.schema import ModelConfig
from serve.gateway.endpoints import ModelEndpoint
from serve.gateway.model_state import Forms, ModelState
from serve.telemetry.mmap_store import MmapWriter
from serve.telemetry.recorder import Metrics, ModelRecorder

CONFIGS = [ModelConfig(name="m", max_batch=number) for number in (1, 2, 3)]
FAULTS = [ArtifactError("no weights"), RuntimeError("engine"), MemoryError(), OSError("disk"), RecursionError("deep")]


@dataclass
class Engine:
    """Stands for the engine of a load. `closed`: how often it was freed."""

    slots: Any = None
    closed: int = 0
    trouble: str = ""

    def close(self) -> None:
        self.closed += 1


class Batcher:
    """Stands for the batcher of an endpoint."""

    async def close(self) -> None:
        await asyncio.sleep(0)


@dataclass
class Loads:
    """Loads that the test ends, with success or an error."""

    recorder: ModelRecorder
    engines: list[Engine] = field(default_factory=list)
    waiting: list[asyncio.Future[Exception | None]] = field(default_factory=list)

    async def load(self, config: ModelConfig) -> Forms:
        end: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.waiting.append(end)
        if error := await end:
            raise error
        self.engines.append(Engine())
        return (self._endpoint(config, self.engines[-1]),)

    def end(self, error: Exception | None) -> None:
        if self.waiting:
            self.waiting.pop(0).set_result(error)

    def _endpoint(self, config: ModelConfig, engine: Engine) -> ModelEndpoint:
        manifest = Manifest(
            "m", "1", "", "", ("a",), Preprocessing(1, 1, 1, (0.0,), (1.0,)), 0, 0, {}, {}, {}, {}, "", ""
        )
        spec = TensorSpec("image", np.dtype(np.uint8), (-1,))
        batcher: Any = Batcher()
        executor: Any = engine
        decoder: Any = None
        return ModelEndpoint(
            "m", "1", "image", ("a",), spec, 1, decoder, batcher, self.recorder, config, manifest, executor
        )


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> ModelRecorder:
    return ModelRecorder(Metrics(MmapWriter(tmp_path_factory.mktemp("metrics"))), "m", "1")


async def run_tasks() -> None:
    """Lets the other tasks run until they wait."""
    for _ in range(10):
        await asyncio.sleep(0)


def run(recorder: ModelRecorder, scenario: Callable[[ModelState, Loads], Any]) -> None:
    async def test() -> None:
        loads = Loads(recorder)
        state = ModelState(loads.load, lambda: None, lambda: None)
        await scenario(state, loads)
        state.close()

    asyncio.run(asyncio.wait_for(test(), 60))


WANTED = st.sampled_from([None, *CONFIGS])
STEPS = st.lists(
    st.one_of(st.tuples(st.just("want"), WANTED), st.tuples(st.just("end"), st.sampled_from([None, *FAULTS])))
)


@settings(max_examples=60)
@given(STEPS, WANTED, st.booleans())
def test_it_settles_with_the_wanted_configuration_or_a_reason(
    recorder: ModelRecorder, steps: list[tuple[str, Any]], last: ModelConfig | None, loads_succeed: bool
) -> None:
    async def scenario(state: ModelState, loads: Loads) -> None:
        for action, value in steps:
            state.want(value) if action == "want" else loads.end(value)
            await run_tasks()
        state.want(last)
        await run_tasks()
        while not state.settled.is_set():
            loads.end(None if loads_succeed else ArtifactError("no weights"))
            await run_tasks()
        serving = [endpoint.config for endpoint in state.serving]
        if serving == ([last] if last else []):
            assert state.problem == ""
        else:
            assert not loads_succeed
            assert state.problem == "no weights"
        kept = {id(endpoint.executor) for endpoint in state.serving}
        assert all(engine.closed == (id(engine) not in kept) for engine in loads.engines)

    run(recorder, scenario)


@pytest.mark.parametrize("error", FAULTS, ids=lambda error: type(error).__name__)
def test_any_exception_of_a_load_becomes_the_reason(recorder: ModelRecorder, error: Exception) -> None:
    async def scenario(state: ModelState, loads: Loads) -> None:
        state.want(CONFIGS[0])
        await run_tasks()
        assert not state.settled.is_set()
        loads.end(error)
        await state.settled.wait()
        assert str(error) in state.problem
        state.want(CONFIGS[0])
        assert not state.settled.is_set()
        await run_tasks()
        assert str(error) in state.problem  # until the new load has ended
        loads.end(None)
        await state.settled.wait()
        assert (state.problem, len(state.serving)) == ("", 1)

    run(recorder, scenario)


def test_the_former_configuration_serves_until_the_new_one_is_loaded(recorder: ModelRecorder) -> None:
    async def scenario(state: ModelState, loads: Loads) -> None:
        first, second = CONFIGS[:2]
        for config, error in ((first, None), (second, ArtifactError("no weights")), (second, None)):
            state.want(config)
            await run_tasks()
            loads.end(error)
            await state.settled.wait()
            assert state.serving[0].config == (second if (config, error) == (second, None) else first)
        assert [engine.closed for engine in loads.engines] == [1, 0]

    run(recorder, scenario)


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 another task changes it
        await asyncio.sleep(0)


def test_a_failed_load_is_retried(recorder: ModelRecorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.gateway.model_state.FIRST_PAUSE_SECONDS", 0.001)

    async def scenario(state: ModelState, loads: Loads) -> None:
        state.want(CONFIGS[0])
        for _ in range(3):
            await until(lambda: loads.waiting)
            loads.end(ArtifactError("no weights"))
            await state.settled.wait()
        await until(lambda: loads.waiting)
        loads.end(None)
        await until(lambda: state.serving)
        assert state.problem == ""

    run(recorder, scenario)


def test_closing_cancels_a_load(recorder: ModelRecorder) -> None:
    async def scenario(state: ModelState, loads: Loads) -> None:
        state.want(CONFIGS[0])
        await run_tasks()
        (load,) = loads.waiting
        state.close()
        await run_tasks()
        assert load.cancelled()

    run(recorder, scenario)
