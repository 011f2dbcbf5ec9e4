"""Failing engines: a probe tells a bad batch from a broken engine, and broken engines and hosts get no more requests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from convoy.errors import ArtifactError, ConvoyError, EngineFailed, NotReady
from models.artifact import MANIFEST, Artifact, Manifest
from models.engines.engine import Engine, TensorSpec
from models.engines.logits import has_distribution
from models.engines.store.store import Store
from serve.batching.latency_curve import LatencyCurve
from serve.config.schema import ModelConfig, Settings
from serve.executors.base import EngineFacts
from serve.executors.engine_selection import build_spec
from serve.executors.engine_set import EngineSet, load_engines
from serve.executors.host import HostAnswer, HostExecutor, HostFacts
from serve.executors.local import LocalExecutor
from serve.gateway.endpoints import ModelEndpoint
from serve.gateway.revisions import Revisions
from serve.telemetry.mmap_store import MmapWriter
from serve.telemetry.recorder import Metrics
from tests.artifacts import CLASSES, POISON, SIDE, write_artifact
from tests.serve.gateway.in_process import following, run, unavailable
from tests.serve.listeners import InProcess

FACTS = EngineFacts("onnxruntime", "1", "onnxruntime_onnx", "fp32", "reference")
IMAGE = TensorSpec("image", np.dtype(np.uint8), (-1, SIDE, SIDE, 1))
ROWS = np.zeros((3, SIDE, SIDE, 1), np.uint8)


class DroppedRow:
    """An engine whose output lacks a row."""

    def __init__(self, engine: Engine) -> None:
        self.input, self.output, self._engine = engine.input, engine.output, engine

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        return self._engine.run(batch)[1:]


class AlwaysNan(DroppedRow):
    """An engine whose output is always NaN, as on a defective GPU."""

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        return np.full_like(self._engine.run(batch), np.nan)


def load(tmp_path: Path, **options: Any) -> EngineSet:
    artifact = Artifact.load(write_artifact(tmp_path / "a", "a", **options))
    model = ModelConfig(name="a", artifact=str(artifact.folder))
    spec, metrics = build_spec(model, artifact), Metrics(MmapWriter(tmp_path / "metrics"))
    return load_engines(model, spec, Store(tmp_path / "store"), 1, metrics)


@pytest.fixture
def engines(tmp_path: Path) -> EngineSet:
    return load(tmp_path, faulty=True)


def damage(engines: EngineSet, damaged: type[DroppedRow]) -> Callable[[], None]:
    """Replaces the engines of every form by damaged ones. Returns a function that repairs them."""
    sound = engines._warm
    engines._warm = replace(sound, engines={form: damaged(engine) for form, engine in sound.engines.items()})
    return lambda: setattr(engines, "_warm", sound)


def test_an_engine_that_fails_on_a_bad_batch_is_not_broken(engines: EngineSet) -> None:
    with pytest.raises(EngineFailed, match="ONNX Runtime"):
        engines.run("image", np.full_like(ROWS, POISON))
    assert engines.run("image", ROWS).shape == (3, CLASSES)
    engines.probe()


def test_a_broken_engine_is_reported_until_it_works_again(engines: EngineSet) -> None:
    repair = damage(engines, DroppedRow)
    with pytest.raises(NotReady, match="broken"):
        engines.run("image", ROWS)
    with pytest.raises(EngineFailed, match=r"answered \[2, 4\] for 3 rows"):
        engines.probe()
    repair()
    engines.probe()


def test_an_engine_that_always_answers_nan_is_broken(engines: EngineSet) -> None:
    repair = damage(engines, AlwaysNan)
    with pytest.raises(NotReady, match="broken"):
        engines.run("image", ROWS)
    with pytest.raises(EngineFailed, match="blank rows with NaN"):
        engines.probe()
    repair()
    engines.probe()
    assert engines.run("image", ROWS).shape == (3, CLASSES)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_an_engine_that_answers_nan_to_a_tensor_out_of_range_is_not_broken(tmp_path: Path, value: float) -> None:
    """Only that row has no answer, and no replica is restarted."""
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


class Handle:
    """A handle of a deployment whose calls have these results, in this order."""

    def __init__(self, *results: NDArray[np.float32] | ConvoyError) -> None:
        self.results = list(results)
        self.run = self

    def remote(self, form: str, rows: NDArray[Any], caller: str, backlog: float) -> Awaitable[HostAnswer]:
        async def answer() -> HostAnswer:
            result = self.results.pop(0)
            if isinstance(result, ConvoyError):
                raise result
            return HostAnswer(result, "node", 1, 1, FACTS)

        return answer()


def call_host(handle: Handle) -> NDArray[np.float32]:
    async def scenario() -> NDArray[np.float32]:
        facts = HostFacts({"image": IMAGE}, CLASSES, LatencyCurve((1,), (0.001,)), FACTS)
        return await HostExecutor(handle, facts, 2).run("image", ROWS)  # type: ignore[arg-type]

    return asyncio.run(scenario())


@pytest.mark.parametrize(
    "failure",
    [
        lambda: NotReady("the engine is broken; retry"),
        lambda: np.zeros((2, CLASSES), np.float32),
        lambda: np.zeros((3, CLASSES + 1), np.float32),
        lambda: np.zeros((3,), np.float32),
    ],
)
def test_a_batch_runs_again_on_another_host_if_its_host_is_broken(failure: Callable[[], Any]) -> None:
    logits = np.ones((3, CLASSES), np.float32)
    assert call_host(Handle(failure(), failure(), logits)) is logits


def test_a_batch_that_fails_on_its_host_does_not_run_again() -> None:
    handle = Handle(EngineFailed("bad batch"))
    with pytest.raises(EngineFailed, match="bad batch"):
        call_host(handle)
    assert not handle.results


def relabel(folder: Path, labels: tuple[str, ...]) -> tuple[str, ...]:
    """Replaces the labels of a manifest. Returns the former ones."""
    manifest = Manifest.from_json((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(replace(manifest, labels=labels).to_json())
    return manifest.labels


def local_engines(gateway: InProcess, name: str) -> EngineSet:
    endpoint = gateway.plane.endpoints.by_name[name]
    assert isinstance(endpoint, ModelEndpoint)
    assert isinstance(endpoint.executor, LocalExecutor)
    return endpoint.executor._engines


async def break_engine(gateway: InProcess, name: str, form: Any = "image") -> Callable[[], None]:
    """Damages a model's engines and runs one, so that the fault is noticed. Returns a function that repairs them."""
    engines = local_engines(gateway, name)
    repair = damage(engines, DroppedRow)
    with pytest.raises(NotReady, match="broken"):
        await asyncio.to_thread(
            engines.run, form, np.zeros((2, *engines.inputs[form].shape[1:]), engines.inputs[form].dtype)
        )
    return repair


def states(gateway: InProcess) -> dict[str, str]:
    """The state by name, followed by the reason."""
    return {entry.name: f"{entry.state} {entry.reason}".strip() for entry in gateway.repository.index()}


@pytest.mark.parametrize("labels", [("one", "two", "three"), ("one", "two", "three", "four", "five")])
def test_a_load_fails_if_the_number_of_labels_is_not_that_of_the_logits(
    settings: Settings, tmp_path: Path, labels: tuple[str, ...]
) -> None:
    former = relabel(tmp_path / "a", labels)

    async def scenario() -> None:
        async with following(settings, Revisions(), "gateway") as (gateway,):
            reason = f"4 logits.*{len(labels)} labels.*import"
            with pytest.raises(ArtifactError, match=reason):
                await gateway.repository.load("a")
            with pytest.raises(NotReady, match=reason):
                gateway.plane.find("a")
            assert states(gateway)["b"] == "READY"
            relabel(tmp_path / "a", former)
            await gateway.repository.load("a")
            assert set(states(gateway).values()) == {"READY"}

    run(scenario())


def test_a_broken_engine_makes_only_its_model_unavailable(settings: Settings) -> None:
    async def scenario() -> None:
        async with following(settings, Revisions(), "gateway") as (gateway,):
            repair = await break_engine(gateway, "a")
            await gateway.repository.check_health()
            found = states(gateway)
            assert found["a"] == found["a-tensor"] == "UNAVAILABLE the engine answered [1, 4] for 2 rows"
            assert found["b"] == found["b-tensor"] == "READY"
            assert unavailable(gateway) == {"a": 1, "b": 0}
            repair()
            await gateway.repository.check_health()
            assert set(states(gateway).values()) == {"READY"}
            assert unavailable(gateway) == {"a": 0, "b": 0}

    run(scenario())


def test_a_gateway_whose_engines_are_all_broken_is_unhealthy(settings: Settings) -> None:
    """The cause may be the process, for example a lost CUDA context, so that a new process helps."""

    async def scenario() -> None:
        async with following(settings, Revisions(), "gateway") as (gateway,):
            await break_engine(gateway, "a")
            await break_engine(gateway, "b", "tensor")
            with pytest.raises(EngineFailed, match=r"a: the engine answered \[1, 4\].*; b: "):
                await gateway.repository.check_health()
            await gateway.repository.unload("a")
            await gateway.repository.unload("b")
            await gateway.repository.check_health()

    run(scenario())


def test_a_failed_probe_is_repeated(engines: EngineSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe skips an engine that ran lately, unless one of its runs failed."""
    monkeypatch.setattr("serve.executors.engine_set.PROBE_AFTER_SECONDS", -1.0)
    repair = damage(engines, AlwaysNan)
    with pytest.raises(EngineFailed, match="blank rows with NaN"):
        engines.probe()
    monkeypatch.setattr("serve.executors.engine_set.PROBE_AFTER_SECONDS", 1000.0)
    with pytest.raises(EngineFailed, match="blank rows with NaN"):
        engines.probe()
    repair()
    engines.probe()
    assert engines.trouble == ""


def test_an_explicit_load_replaces_a_broken_engine(settings: Settings, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with following(settings, Revisions(), "gateway") as (gateway,):
            await gateway.repository.load("a")
            broken, other = local_engines(gateway, "a"), local_engines(gateway, "b")
            await break_engine(gateway, "a")
            former = relabel(tmp_path / "a", ("one",))
            with pytest.raises(ArtifactError, match="1 labels"):
                await gateway.repository.load("a")
            assert states(gateway)["a"].startswith("UNAVAILABLE")
            relabel(tmp_path / "a", former)
            await gateway.repository.load("a")
            assert states(gateway)["a"] == "READY"
            assert local_engines(gateway, "a") is not broken
            assert local_engines(gateway, "b") is other

    run(scenario())
