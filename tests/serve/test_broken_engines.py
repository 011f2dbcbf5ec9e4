"""An engine that fails: whether it was the batch or the engine is found out, and a host that is broken is asked no more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from convoy.errors import ConvoyError, EngineFailed, NotReady
from models.artifact import Artifact
from models.engines.engine import Engine, TensorSpec
from models.engines.logits import has_distribution
from models.engines.store import Store
from serve.config import ModelConfig
from serve.curve import LatencyCurve
from serve.engines import EngineFacts
from serve.executors import Engines, load_engines
from serve.host import HostAnswer, HostExecutor, HostFacts
from serve.metric_pages import PageWriter
from serve.metrics import Metrics
from tests.artifacts import CLASSES, POISON, SIDE, write_artifact

FACTS = EngineFacts("onnxruntime", "1", "onnxruntime_onnx", "fp32", "reference")
IMAGE = TensorSpec("image", np.dtype(np.uint8), (-1, SIDE, SIDE, 1))
ROWS = np.zeros((3, SIDE, SIDE, 1), np.uint8)


class Short:
    """An engine that loses a row of every answer."""

    def __init__(self, engine: Engine) -> None:
        self.input, self.output, self._engine = engine.input, engine.output, engine

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        return self._engine.run(batch)[1:]


class NoNumbers(Short):
    """An engine that answers NaN to everything, as a broken card may."""

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        return np.full_like(self._engine.run(batch), np.nan)


def load(tmp_path: Path, **how: Any) -> Engines:
    artifact = Artifact.load(write_artifact(tmp_path / "a", "a", **how))
    model = ModelConfig(name="a", artifact=str(artifact.folder))
    return load_engines(model, artifact, Store(tmp_path / "store"), 1, Metrics(PageWriter(tmp_path / "pages")))


@pytest.fixture
def engines(tmp_path: Path) -> Engines:
    return load(tmp_path, faulty=True)


def test_a_batch_that_fails_says_nothing_of_the_engine(engines: Engines) -> None:
    with pytest.raises(EngineFailed, match="ONNX Runtime"):
        engines.run("image", np.full_like(ROWS, POISON))
    assert engines.run("image", ROWS).shape == (3, CLASSES)
    engines.probe()


def test_a_broken_engine_says_so_until_it_is_whole(engines: Engines) -> None:
    whole = engines._warm
    engines._warm = replace(whole, engines={form: Short(engine) for form, engine in whole.engines.items()})
    with pytest.raises(NotReady, match="broken"):
        engines.run("image", ROWS)
    with pytest.raises(EngineFailed, match=r"answered \[2, 4\] for 3 rows"):
        engines.probe()
    engines._warm = whole
    engines.probe()


def test_an_engine_that_answers_nan_to_everything_is_broken(engines: Engines) -> None:
    whole = engines._warm
    engines._warm = replace(whole, engines={form: NoNumbers(engine) for form, engine in whole.engines.items()})
    with pytest.raises(NotReady, match="broken"):
        engines.run("image", ROWS)
    with pytest.raises(EngineFailed, match="blank rows with NaN"):
        engines.probe()
    engines._warm = whole
    engines.probe()
    assert engines.run("image", ROWS).shape == (3, CLASSES)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_a_tensor_that_is_no_image_says_nothing_of_the_engine(tmp_path: Path, value: float) -> None:
    """Its own row gets no answer, the others get theirs, and no replica is restarted."""
    engines = load(tmp_path)
    rows = np.zeros((3, 1, SIDE, SIDE), np.float32)
    rows[1] = value
    logits = engines.run("tensor", rows)
    assert has_distribution(logits).tolist() == [True, False, True]
    assert not has_distribution(engines.run("tensor", rows[1:2])).any()
    engines.probe()


def test_an_engine_that_answers_nan_to_blank_rows_is_not_loaded(tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match="import or compile the model again"):
        load(tmp_path, nan_from=0.0)


class Method:
    """The handle of a deployment whose replicas give these answers, one after the other."""

    def __init__(self, *answers: NDArray[np.float32] | ConvoyError) -> None:
        self.answers = list(answers)
        self.run = self

    def remote(self, form: str, rows: NDArray[Any], caller: str, backlog: float) -> Awaitable[HostAnswer]:
        async def answer() -> HostAnswer:
            told = self.answers.pop(0)
            if isinstance(told, ConvoyError):
                raise told
            return HostAnswer(told, "node", 1, 1, FACTS)

        return answer()


def ask(handle: Method) -> NDArray[np.float32]:
    async def scenario() -> NDArray[np.float32]:
        facts = HostFacts({"image": IMAGE}, CLASSES, LatencyCurve((1,), (0.001,)), FACTS)
        return await HostExecutor(handle, facts, 2).run("image", ROWS)  # type: ignore[arg-type]

    return asyncio.run(scenario())


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: NotReady("the engine is broken; retry"),
        lambda: np.zeros((2, CLASSES), np.float32),
        lambda: np.zeros((3, CLASSES + 1), np.float32),
        lambda: np.zeros((3,), np.float32),
    ],
)
def test_what_a_broken_host_got_runs_again_elsewhere(wrong: Callable[[], Any]) -> None:
    right = np.ones((3, CLASSES), np.float32)
    assert ask(Method(wrong(), wrong(), right)) is right


def test_what_no_host_can_run_is_asked_once() -> None:
    handle = Method(EngineFailed("bad batch"))
    with pytest.raises(EngineFailed, match="bad batch"):
        ask(handle)
    assert not handle.answers
