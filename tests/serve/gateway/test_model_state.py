"""A model's state by itself: whatever is wanted and however loads end, it comes to rest, and nothing that was loaded is lost."""

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
    """Stands for what a load took; `closed` counts how often it was freed."""

    slots: Any = None
    closed: int = 0
    trouble: str = ""

    def close(self) -> None:
        self.closed += 1


class Line:
    async def close(self) -> None:
        await asyncio.sleep(0)


@dataclass
class Loads:
    """Loads that end when the test says so, with what it says."""

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
        line: Any = Line()
        executor: Any = engine
        decoder: Any = None
        return ModelEndpoint(
            "m", "1", "image", ("a",), spec, 1, decoder, line, self.recorder, config, manifest, executor
        )


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> ModelRecorder:
    return ModelRecorder(Metrics(MmapWriter(tmp_path_factory.mktemp("pages"))), "m", "1")


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def run(recorder: ModelRecorder, scenario: Callable[[ModelState, Loads], Any]) -> None:
    async def test() -> None:
        loads = Loads(recorder)
        state = ModelState(loads.load, lambda: None, lambda: None)
        await scenario(state, loads)
        state.close()

    asyncio.run(asyncio.wait_for(test(), 60))


WISH = st.sampled_from([None, *CONFIGS])
STEPS = st.lists(
    st.one_of(st.tuples(st.just("want"), WISH), st.tuples(st.just("end"), st.sampled_from([None, *FAULTS])))
)


@settings(max_examples=60)
@given(STEPS, WISH, st.booleans())
def test_it_comes_to_rest_with_what_is_wanted_or_a_reason(
    recorder: ModelRecorder, steps: list[tuple[str, Any]], last: ModelConfig | None, works: bool
) -> None:
    async def scenario(state: ModelState, loads: Loads) -> None:
        for what, value in steps:
            state.want(value) if what == "want" else loads.end(value)
            await turns()
        state.want(last)
        await turns()
        while not state.settled.is_set():
            loads.end(None if works else ArtifactError("no weights"))
            await turns()
        serving = [endpoint.config for endpoint in state.serving]
        if serving == ([last] if last else []):
            assert state.problem == ""
        else:
            assert not works
            assert state.problem == "no weights"
        kept = {id(endpoint.executor) for endpoint in state.serving}
        assert all(engine.closed == (id(engine) not in kept) for engine in loads.engines)

    run(recorder, scenario)


@pytest.mark.parametrize("error", FAULTS, ids=lambda error: type(error).__name__)
def test_whatever_a_load_raises_is_this_models_reason(recorder: ModelRecorder, error: Exception) -> None:
    async def scenario(state: ModelState, loads: Loads) -> None:
        state.want(CONFIGS[0])
        await turns()
        assert not state.settled.is_set()
        loads.end(error)
        await state.settled.wait()
        assert str(error) in state.problem
        state.want(CONFIGS[0])
        assert not state.settled.is_set()
        await turns()
        assert str(error) in state.problem  # until it is known better
        loads.end(None)
        await state.settled.wait()
        assert (state.problem, len(state.serving)) == ("", 1)

    run(recorder, scenario)


def test_the_former_configuration_serves_until_the_next_one_does(recorder: ModelRecorder) -> None:
    async def scenario(state: ModelState, loads: Loads) -> None:
        first, second = CONFIGS[:2]
        for config, error in ((first, None), (second, ArtifactError("no weights")), (second, None)):
            state.want(config)
            await turns()
            loads.end(error)
            await state.settled.wait()
            assert state.serving[0].config == (second if (config, error) == (second, None) else first)
        assert [engine.closed for engine in loads.engines] == [1, 0]

    run(recorder, scenario)


async def until(true: Callable[[], object]) -> None:
    while not true():  # noqa: ASYNC110 it comes true by another task
        await asyncio.sleep(0)


def test_it_is_tried_again_by_itself(recorder: ModelRecorder, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_the_end_of_the_gateway_ends_a_load(recorder: ModelRecorder) -> None:
    async def scenario(state: ModelState, loads: Loads) -> None:
        state.want(CONFIGS[0])
        await turns()
        (load,) = loads.waiting
        state.close()
        await turns()
        assert load.cancelled()

    run(recorder, scenario)
