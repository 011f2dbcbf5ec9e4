"""The model repository of gateways that follow a coordinator: loads, unloads, new catalogs and failures."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from convoy.errors import ArtifactError, NotFound, NotReady
from models.artifact import Artifact
from serve.config.loading import parse_settings
from serve.config.schema import ModelConfig, Settings
from serve.executors.base import Executor
from serve.gateway.repository import Decides
from serve.gateway.revisions import Change, Report, Revision, Revisions
from serve.telemetry.exposition import total
from serve.telemetry.mmap_store import read_files
from tests.artifacts import garble, write_artifact
from tests.serve.gateway.in_process import following, run, started, unavailable
from tests.serve.listeners import InProcess
from tests.waiting import until


def test_a_load_or_unload_has_taken_effect_in_every_gateway_when_it_returns(settings: Settings) -> None:
    async def scenario() -> None:
        revisions = Revisions()
        async with following(settings, revisions, "first", "second") as (first, second):
            await first.repository.unload("a-tensor")
            for gateway in (first, second):
                assert set(gateway.plane.endpoints.by_name) == {"b", "b-tensor"}
                assert [entry.state for entry in gateway.repository.index()] == ["UNAVAILABLE"] * 2 + ["READY"] * 2
                assert [entry.name for entry in gateway.repository.index(only_ready=True)] == ["b", "b-tensor"]
                with pytest.raises(NotFound, match="/load"):
                    gateway.plane.find("a")
            async with following(settings, revisions, "third") as (third,):  # starts after the unload
                assert set(third.plane.endpoints.by_name) == {"b", "b-tensor"}
                await second.repository.load("a")
                for gateway in (first, second, third):
                    assert set(gateway.plane.endpoints.by_name) == {"a", "a-tensor", "b", "b-tensor"}
                    gateway.plane.find("a")

    run(scenario())


def test_a_model_whose_artifact_was_damaged_loads_after_the_repair(settings: Settings, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with following(settings, Revisions(), "gateway") as (gateway,):
            await gateway.repository.unload("a")
            model = tmp_path / "a" / "image.onnx"
            content = model.read_bytes()
            model.write_bytes(b"broken")
            with pytest.raises(ArtifactError):
                await gateway.repository.load("a")
            broken = next(entry for entry in gateway.repository.index() if entry.name == "a")
            assert broken.state == "UNAVAILABLE"
            assert broken.reason
            gateway.plane.find("b")
            model.write_bytes(content)
            await gateway.repository.load("a")
            gateway.plane.find("a")

    run(scenario())


def states(gateway: InProcess) -> dict[str, tuple[str, str]]:
    """State and reason by name, without the tensor forms of models."""
    index = gateway.repository.index()
    return {entry.name: (entry.state, entry.reason) for entry in index if not entry.name.endswith("-tensor")}


def test_a_load_that_fails_does_not_delay_changes_of_other_models(settings: Settings, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with following(settings, Revisions(), "first", "second") as (first, second):
            await first.repository.unload("a")
            (tmp_path / "a" / "image.onnx").write_bytes(b"broken")
            with pytest.raises(ArtifactError, match=r"image\.onnx"):
                await first.repository.load("a")
            await second.repository.unload("b")
            for gateway in (first, second):
                assert not gateway.plane.endpoints.by_name
                with pytest.raises(NotFound, match="not loaded"):
                    gateway.plane.find("b")
                with pytest.raises(NotReady, match=r"image\.onnx"):
                    gateway.plane.find("a-tensor")
            await first.repository.load("b")
            for gateway in (first, second):
                gateway.plane.find("b")

    run(scenario())


def test_every_gateway_reports_what_a_single_gateway_could_not_load(settings: Settings, tmp_path: Path) -> None:
    async def scenario() -> None:
        revisions = Revisions()
        other = [{"name": name, "artifact": str(write_artifact(tmp_path / "other" / name, name))} for name in "ab"]
        elsewhere = parse_settings({"runtime_dir": str(tmp_path / "node"), "models": other})
        async with (
            following(settings, revisions, "sound") as (sound,),
            following(elsewhere, revisions, "damaged") as (damaged,),
        ):
            await sound.repository.unload("a")
            model = tmp_path / "other" / "a" / "tensor.onnx"
            content = model.read_bytes()
            model.write_bytes(b"broken")
            for gateway in (sound, damaged):
                with pytest.raises(ArtifactError, match=r"^1 of 2 gateways could not load a: .*other/a/tensor\.onnx"):
                    await gateway.repository.load("a")
                assert states(sound)["a"] == ("READY", "")
                assert states(damaged)["a"][0] == "UNAVAILABLE"
            model.write_bytes(content)
            await sound.repository.load("a")
            assert states(sound) == states(damaged) == dict.fromkeys("ab", ("READY", ""))

    run(scenario())


def test_a_starting_gateway_serves_every_model_that_it_can_load(settings: Settings, tmp_path: Path) -> None:
    additions = {
        "models": [
            *settings.model_dump()["models"],
            {"name": "c", "artifact": str(write_artifact(tmp_path / "c", "c"))},
        ],
        "ensembles": [
            {"name": "both", "members": [{"model": "a"}, {"model": "b"}]},
            {"name": "c-alone", "members": [{"model": "c"}]},
        ],
        "cascades": [{"name": "steps", "stages": [{"model": "c", "margin": 0.5}, {"model": "both"}]}],
    }
    settings = parse_settings(settings.model_dump() | additions)
    (tmp_path / "a" / "manifest.json").write_bytes(b"\xff" * 10)
    (tmp_path / "b" / "tensor.onnx").unlink()

    async def scenario() -> None:
        async with following(settings, Revisions(), "gateway") as (gateway,):
            gateway.repository.check_start()
            index = states(gateway)
            assert {name for name, (state, _) in index.items() if state == "READY"} == {"c", "c-alone"}
            assert "the manifest cannot be read" in index["a"][1]
            assert "tensor.onnx" in index["b"][1]
            assert index["both"] == ("UNAVAILABLE", f"it needs a: {index['a'][1]}")
            assert index["steps"] == ("UNAVAILABLE", f"it needs both: {index['both'][1]}")
            with pytest.raises(NotReady, match="the manifest cannot be read"):
                gateway.plane.find("steps")
            assert unavailable(gateway) == {"a": 1, "b": 1, "both": 1, "steps": 1, "c": 0, "c-alone": 0}
            for name in ("a", "b"):
                await gateway.repository.unload(name)
            assert unavailable(gateway) == {"c": 0, "c-alone": 0}

    run(scenario())


def test_a_gateway_that_can_serve_nothing_does_not_start(settings: Settings, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "image.onnx").unlink()

    async def scenario() -> None:
        async with following(settings, Revisions(), "gateway") as (gateway,):
            with pytest.raises(NotReady, match=r"a: .*image\.onnx.*b: .*image\.onnx"):
                gateway.repository.check_start()
            for name in ("a", "b"):
                await gateway.repository.unload(name)
            gateway.repository.check_start()

    run(scenario())


def test_a_new_catalog_takes_effect_except_for_models_that_cannot_be_loaded(settings: Settings, tmp_path: Path) -> None:
    document = settings.model_dump()
    a, b = document["models"]
    broken = write_artifact(tmp_path / "broken", "broken")
    (broken / "image.onnx").write_bytes(b"broken")
    changed = {
        "models": [a | {"artifact": str(broken)}, b | {"max_batch": 2}, {"name": "new", "artifact": str(broken)}],
        "ensembles": [{"name": "alone", "members": [{"model": "b"}]}, {"name": "never", "members": [{"model": "new"}]}],
    }

    async def scenario() -> None:
        async with following(settings, Revisions(), "gateway") as (gateway,):
            former = gateway.plane.find("a")
            await gateway.repository.declare(parse_settings(document | changed).catalog)
            assert gateway.plane.find("a") is former
            assert states(gateway)["a"][0] == "READY"
            assert "image.onnx" in states(gateway)["a"][1]
            assert gateway.plane.find("b").batcher.limits.batch <= 2
            gateway.plane.find("alone")
            for name in ("new", "never"):
                with pytest.raises(NotReady, match=r"image\.onnx"):
                    gateway.plane.find(name)
            assert {entry.name for entry in gateway.repository.problems()} == {"a", "new", "never"}
            await gateway.repository.declare(settings.catalog)
            assert gateway.repository.problems() == []
            with pytest.raises(NotFound, match="unknown model"):
                gateway.plane.find("new")

    run(scenario())


class Gated(InProcess):
    """A gateway that loads the model "slow" only after `gate` is set, as if the model's host started late."""

    def __init__(self, settings: Settings, coordinator: Decides, name: str) -> None:
        super().__init__(settings, coordinator, name)
        self.gate = asyncio.Event()

    async def connect(self, model: ModelConfig, artifact: Artifact) -> Executor:
        if model.name == "slow":
            await self.gate.wait()
        return await super().connect(model, artifact)


def test_a_model_that_loads_slowly_does_not_delay_other_models(settings: Settings, tmp_path: Path) -> None:
    document = settings.model_dump()
    a, b = document["models"]
    slow = {"name": "slow", "artifact": a["artifact"], "placement": "dedicated"}
    first = document | {"ensembles": [{"name": "of-a", "members": [{"model": "a"}]}]}
    second = document | {"models": [b, slow], "ensembles": [{"name": "of-slow", "members": [{"model": "slow"}]}]}

    async def scenario() -> None:
        gateway = Gated(parse_settings(first), Revisions(), "gateway")
        async with started(gateway):
            declaring = asyncio.create_task(gateway.repository.declare(parse_settings(second).catalog))
            while "slow" not in states(gateway):  # noqa: ASYNC110 another task adds it
                await asyncio.sleep(0)
            with pytest.raises(NotReady, match="being loaded"):
                gateway.plane.find("slow")
            await gateway.repository.unload("b")
            await gateway.repository.load("b")
            assert not declaring.done()
            gateway.plane.find("of-a")  # removed from the catalog, but it serves until the new names do
            gateway.gate.set()
            await declaring
            gateway.plane.find("of-slow")
            assert set(states(gateway)) == {"b", "slow", "of-slow"}

    run(scenario())


class Broken(InProcess):
    """A gateway in which the engine of "a" loads, but no endpoint can be made of it."""

    async def connect(self, model: ModelConfig, artifact: Artifact) -> Executor:
        executor = await super().connect(model, artifact)
        if model.name == "a":
            executor.inputs = {}
        return executor


@pytest.mark.parametrize("kind", [InProcess, Broken])
def test_failed_loads_leave_no_threads_tasks_or_files(
    settings: Settings, tmp_path: Path, kind: type[InProcess]
) -> None:
    async def scenario() -> None:
        threads = engine_threads()
        gateway = kind(settings, Revisions(), "gateway")
        async with started(gateway):
            await gateway.repository.unload("a")
            if kind is InProcess:
                garble(tmp_path / "a")
            left = []
            for _ in range(20):
                with pytest.raises(ArtifactError):
                    await gateway.repository.load("a")
                left.append((len(list(read_files(gateway.metrics.folder))), len(asyncio.all_tasks())))
            assert left[-1] == left[1]
            await asyncio.to_thread(until, lambda: engine_threads() == threads)
            assert loaded_models(gateway) == {"b"}

    run(scenario())


def engine_threads() -> int:
    return sum(thread.name == "engine-a" for thread in threading.enumerate())


def loaded_models(gateway: InProcess) -> set[str]:
    """The models that have an engine in memory, according to the metrics."""
    return {dict(labels)["model"] for labels in total(read_files(gateway.metrics.folder))["convoy_engine_replicas"]}


def test_the_metrics_count_an_engine_whose_model_was_replaced(settings: Settings) -> None:
    async def scenario() -> None:
        async with following(settings, Revisions(), "gateway") as (gateway,):
            a, b = settings.models
            changed = settings.catalog.model_copy(update={"models": (a.model_copy(update={"max_batch": 2}), b)})
            await gateway.repository.declare(changed)
            totals = total(read_files(gateway.metrics.folder))
            for name in ("convoy_engine_replicas", "convoy_engine_info"):
                counts = {dict(labels)["model"]: float(value[0]) for labels, value in totals[name].items()}
                assert counts == {"a": 1, "b": 1}

    run(scenario())


def test_an_ensemble_stays_when_a_model_that_it_does_not_use_changes(settings: Settings) -> None:
    """Replacing it would close it, and its requests that are still being decoded would get 503."""
    document = settings.model_dump() | {"ensembles": [{"name": "of-a", "members": [{"model": "a"}]}]}

    async def scenario() -> None:
        async with following(parse_settings(document), Revisions(), "gateway") as (gateway,):
            before = gateway.plane.find("of-a")
            await gateway.repository.unload("b")
            assert gateway.plane.find("of-a") is before
            before.batcher.admit(1, 1e12)

    run(scenario())


class Unreachable:
    """A coordinator that cannot be reached."""

    async def set_loaded(self, model: str, loaded: bool, known: Revision) -> Change:
        raise NotReady("the coordinator cannot be reached")

    async def follow(self, follower: str, known: Revision, report: Report) -> Revision:
        raise NotReady("the coordinator cannot be reached")

    async def report(self, follower: str, report: Report) -> None:
        raise NotReady("the coordinator cannot be reached")


def test_the_declared_models_serve_without_a_coordinator(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.gateway.repository.FIRST_SECONDS", 0.01)

    async def scenario() -> None:
        async with following(settings, Unreachable(), "gateway") as (gateway,):
            gateway.plane.find("a")
            with pytest.raises(NotReady, match="cannot be reached"):
                await gateway.repository.unload("a")
            gateway.plane.find("a")

    run(scenario())
