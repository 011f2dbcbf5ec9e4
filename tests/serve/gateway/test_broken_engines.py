"""An engine that fails: whether it was the batch or the engine is found out, and a host that is broken is asked no more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
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
from serve.config.loading import parse_settings
from serve.config.schema import ModelConfig, Settings
from serve.executors.base import EngineFacts
from serve.executors.engine_selection import build_spec
from serve.executors.engine_set import EngineSet, load_engines
from serve.executors.host import HostAnswer, HostExecutor, HostFacts
from serve.executors.local import LocalExecutor
from serve.gateway.catalog_loader import close_endpoints
from serve.gateway.endpoints import ModelEndpoint
from serve.gateway.revisions import Revisions
from serve.telemetry.exposition import total
from serve.telemetry.mmap_store import MmapWriter, read_files
from serve.telemetry.recorder import Metrics
from tests.artifacts import CLASSES, POISON, SIDE, write_artifact
from tests.serve.listeners import InProcess

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


def load(tmp_path: Path, **how: Any) -> EngineSet:
    artifact = Artifact.load(write_artifact(tmp_path / "a", "a", **how))
    model = ModelConfig(name="a", artifact=str(artifact.folder))
    spec, metrics = build_spec(model, artifact), Metrics(MmapWriter(tmp_path / "pages"))
    return load_engines(model, spec, Store(tmp_path / "store"), 1, metrics)


@pytest.fixture
def engines(tmp_path: Path) -> EngineSet:
    return load(tmp_path, faulty=True)


def test_a_batch_that_fails_says_nothing_of_the_engine(engines: EngineSet) -> None:
    with pytest.raises(EngineFailed, match="ONNX Runtime"):
        engines.run("image", np.full_like(ROWS, POISON))
    assert engines.run("image", ROWS).shape == (3, CLASSES)
    engines.probe()


def test_a_broken_engine_says_so_until_it_is_whole(engines: EngineSet) -> None:
    whole = engines._warm
    engines._warm = replace(whole, engines={form: Short(engine) for form, engine in whole.engines.items()})
    with pytest.raises(NotReady, match="broken"):
        engines.run("image", ROWS)
    with pytest.raises(EngineFailed, match=r"answered \[2, 4\] for 3 rows"):
        engines.probe()
    engines._warm = whole
    engines.probe()


def test_an_engine_that_answers_nan_to_everything_is_broken(engines: EngineSet) -> None:
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


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    models = [{"name": name, "artifact": str(write_artifact(tmp_path / name, name))} for name in "ab"]
    return parse_settings({"runtime_dir": str(tmp_path / "node"), "models": models})


@asynccontextmanager
async def starting(settings: Settings) -> AsyncIterator[InProcess]:
    gateway = InProcess(settings, Revisions(), "gateway")
    gateway.repository.start()
    await gateway.repository.declare(settings.catalog)
    yield gateway
    gateway.repository.close()
    await close_endpoints(gateway.plane.endpoints.by_name.values())
    gateway.decoders.close()


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 120))


def relabel(folder: Path, labels: tuple[str, ...]) -> tuple[str, ...]:
    """Writes other labels into a manifest, and returns those that were there."""
    manifest = Manifest.from_json((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(replace(manifest, labels=labels).to_json())
    return manifest.labels


def engines_of(gateway: InProcess, name: str) -> EngineSet:
    endpoint = gateway.plane.endpoints.by_name[name]
    assert isinstance(endpoint, ModelEndpoint)
    assert isinstance(endpoint.executor, LocalExecutor)
    return endpoint.executor._engines


async def break_engine(gateway: InProcess, name: str, form: Any = "image") -> None:
    """Its next answers have a row too few, and a request has seen it."""
    engines = engines_of(gateway, name)
    whole = engines._warm
    engines._warm = replace(whole, engines={form: Short(engine) for form, engine in whole.engines.items()})
    with pytest.raises(NotReady, match="broken"):
        await asyncio.to_thread(
            engines.run, form, np.zeros((2, *engines.inputs[form].shape[1:]), engines.inputs[form].dtype)
        )


def states(gateway: InProcess) -> dict[str, str]:
    """The state of every name, followed by its reason."""
    return {one.name: f"{one.state} {one.reason}".strip() for one in gateway.repository.index()}


def shown(gateway: InProcess) -> dict[str, float]:
    """What metrics say of models: 1 is unavailable."""
    found = total(read_files(gateway.metrics.folder))["convoy_model_unavailable"]
    return {dict(labels)["model"]: float(value[0]) for labels, value in found.items()}


@pytest.mark.parametrize("labels", [("one", "two", "three"), ("one", "two", "three", "four", "five")])
def test_labels_that_are_not_as_many_as_the_logits_fail_the_load(
    settings: Settings, tmp_path: Path, labels: tuple[str, ...]
) -> None:
    right = relabel(tmp_path / "a", labels)

    async def scenario() -> None:
        async with starting(settings) as gateway:
            reason = f"4 logits.*{len(labels)} labels.*import"
            with pytest.raises(ArtifactError, match=reason):
                await gateway.repository.load("a")
            with pytest.raises(NotReady, match=reason):
                gateway.plane.find("a")
            assert states(gateway)["b"] == "READY"
            relabel(tmp_path / "a", right)
            await gateway.repository.load("a")
            assert set(states(gateway).values()) == {"READY"}

    run(scenario())


def test_one_broken_engine_is_unavailable_alone(settings: Settings) -> None:
    async def scenario() -> None:
        async with starting(settings) as gateway:
            engines, whole = engines_of(gateway, "a"), engines_of(gateway, "a")._warm
            await break_engine(gateway, "a")
            await gateway.repository.check_health()
            found = states(gateway)
            assert found["a"] == found["a-tensor"] == "UNAVAILABLE the engine answered [1, 4] for 2 rows"
            assert found["b"] == found["b-tensor"] == "READY"
            assert shown(gateway) == {"a": 1, "b": 0}
            engines._warm = whole
            await gateway.repository.check_health()
            assert set(states(gateway).values()) == {"READY"}
            assert shown(gateway) == {"a": 0, "b": 0}

    run(scenario())


def test_a_gateway_whose_engines_are_all_broken_is_replaced(settings: Settings) -> None:
    """Another process may cure what they share, as a lost context of a card."""

    async def scenario() -> None:
        async with starting(settings) as gateway:
            await break_engine(gateway, "a")
            await break_engine(gateway, "b", "tensor")
            with pytest.raises(EngineFailed, match=r"a: the engine answered \[1, 4\].*; b: "):
                await gateway.repository.check_health()
            await gateway.repository.unload("a")
            await gateway.repository.unload("b")
            await gateway.repository.check_health()

    run(scenario())


def test_a_probe_that_failed_is_made_again(engines: EngineSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """What answers NaN has run all the same, and so lately that a probe might not ask it."""
    monkeypatch.setattr("serve.executors.engine_set.PROBE_AFTER_SECONDS", -1.0)
    whole = engines._warm
    engines._warm = replace(whole, engines={form: NoNumbers(engine) for form, engine in whole.engines.items()})
    with pytest.raises(EngineFailed, match="blank rows with NaN"):
        engines.probe()
    monkeypatch.setattr("serve.executors.engine_set.PROBE_AFTER_SECONDS", 1000.0)
    with pytest.raises(EngineFailed, match="blank rows with NaN"):
        engines.probe()
    engines._warm = whole
    engines.probe()
    assert engines.trouble == ""


def test_a_load_of_a_broken_model_loads_it_anew(settings: Settings, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with starting(settings) as gateway:
            await gateway.repository.load("a")
            broken, other = engines_of(gateway, "a"), engines_of(gateway, "b")
            await break_engine(gateway, "a")
            right = relabel(tmp_path / "a", ("one",))
            with pytest.raises(ArtifactError, match="1 labels"):
                await gateway.repository.load("a")
            assert states(gateway)["a"].startswith("UNAVAILABLE")
            relabel(tmp_path / "a", right)
            await gateway.repository.load("a")
            assert states(gateway)["a"] == "READY"
            assert engines_of(gateway, "a") is not broken
            assert engines_of(gateway, "b") is other

    run(scenario())
