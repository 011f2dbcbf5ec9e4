"""Two gateways and one steward: what is changed through one of them is changed in both."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

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
from tests.serve.listeners import InProcess
from tests.waiting import until


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    models = [{"name": name, "artifact": str(write_artifact(tmp_path / name, name))} for name in ("a", "b")]
    return parse_settings({"runtime_dir": str(tmp_path / "node"), "models": models})


def test_both_gateways_change_before_the_answer_comes(settings: Settings) -> None:
    async def scenario() -> None:
        revisions = Revisions()
        first, second = (InProcess(settings, revisions, name) for name in ("first", "second"))
        for one in (first, second):
            one.repository.start()
            await one.repository.declare(settings.catalog)
        await first.repository.unload("a-tensor")
        for one in (first, second):
            assert set(one.plane.endpoints.by_name) == {"b", "b-tensor"}
            assert [entry.state for entry in one.repository.index()] == ["UNAVAILABLE"] * 2 + ["READY"] * 2
            assert [entry.name for entry in one.repository.index(only_ready=True)] == ["b", "b-tensor"]
            with pytest.raises(NotFound, match="/load"):
                one.plane.find("a")
        third = InProcess(settings, revisions, "third")  # one that starts later
        third.repository.start()
        await third.repository.declare(settings.catalog)
        assert set(third.plane.endpoints.by_name) == {"b", "b-tensor"}
        await second.repository.load("a")
        for one in (first, second, third):
            assert set(one.plane.endpoints.by_name) == {"a", "a-tensor", "b", "b-tensor"}
            one.plane.find("a")
            one.repository.close()

    asyncio.run(scenario())


def test_an_artifact_that_breaks_meanwhile(settings: Settings, tmp_path: Path) -> None:
    async def scenario() -> None:
        gateway = InProcess(settings, Revisions(), "gateway")
        gateway.repository.start()
        await gateway.repository.declare(settings.catalog)
        await gateway.repository.unload("a")
        model = tmp_path / "a" / "image.onnx"
        whole = model.read_bytes()
        model.write_bytes(b"broken")
        with pytest.raises(ArtifactError):
            await gateway.repository.load("a")
        broken = next(entry for entry in gateway.repository.index() if entry.name == "a")
        assert broken.state == "UNAVAILABLE"
        assert broken.reason
        gateway.plane.find("b")
        model.write_bytes(whole)
        await gateway.repository.load("a")
        gateway.plane.find("a")
        gateway.repository.close()

    asyncio.run(scenario())


def states(gateway: InProcess) -> dict[str, tuple[str, str]]:
    """State and reason of every name, the models' float forms apart."""
    index = gateway.repository.index()
    return {one.name: (one.state, one.reason) for one in index if not one.name.endswith("-tensor")}


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 120))


@asynccontextmanager
async def following(settings: Settings, steward: Decides, *names: str) -> AsyncIterator[list[InProcess]]:
    """Gateways that follow a steward and serve what is declared, until the block ends."""
    gateways = [InProcess(settings, steward, name) for name in names]
    for one in gateways:
        one.repository.start()
        await one.repository.declare(settings.catalog)
    yield gateways
    for one in gateways:
        one.repository.close()


def test_a_load_that_fails_holds_up_no_change_of_another_model(settings: Settings, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with following(settings, Revisions(), "first", "second") as (first, second):
            await first.repository.unload("a")
            (tmp_path / "a" / "image.onnx").write_bytes(b"broken")
            with pytest.raises(ArtifactError, match=r"image\.onnx"):
                await first.repository.load("a")
            await second.repository.unload("b")
            for one in (first, second):
                assert not one.plane.endpoints.by_name
                with pytest.raises(NotFound, match="not loaded"):
                    one.plane.find("b")
                with pytest.raises(NotReady, match=r"image\.onnx"):
                    one.plane.find("a-tensor")
            await first.repository.load("b")
            for one in (first, second):
                one.plane.find("b")

    run(scenario())


def test_what_one_gateway_could_not_load_is_told_by_every_gateway(settings: Settings, tmp_path: Path) -> None:
    async def scenario() -> None:
        revisions = Revisions()
        other = [
            {"name": name, "artifact": str(write_artifact(tmp_path / "other" / name, name))} for name in ("a", "b")
        ]
        elsewhere = parse_settings({"runtime_dir": str(tmp_path / "node"), "models": other})
        async with (
            following(settings, revisions, "whole") as (whole,),
            following(elsewhere, revisions, "bad") as (bad,),
        ):
            await whole.repository.unload("a")
            model = tmp_path / "other" / "a" / "tensor.onnx"
            content = model.read_bytes()
            model.write_bytes(b"broken")
            for one in (whole, bad):
                with pytest.raises(ArtifactError, match=r"^1 of 2 gateways could not load a: .*other/a/tensor\.onnx"):
                    await one.repository.load("a")
                assert states(whole)["a"] == ("READY", "")
                assert states(bad)["a"][0] == "UNAVAILABLE"
            model.write_bytes(content)
            await whole.repository.load("a")
            assert states(whole) == states(bad) == dict.fromkeys("ab", ("READY", ""))

    run(scenario())


def test_a_starting_gateway_serves_what_it_can(settings: Settings, tmp_path: Path) -> None:
    made = {
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
    settings = parse_settings(settings.model_dump() | made)
    (tmp_path / "a" / "manifest.json").write_bytes(b"\xff" * 10)
    (tmp_path / "b" / "tensor.onnx").unlink()

    async def scenario() -> None:
        async with following(settings, Revisions(), "gateway") as (gateway,):
            gateway.repository.check_start()
            found = states(gateway)
            assert {name for name, (state, _) in found.items() if state == "READY"} == {"c", "c-alone"}
            assert "the manifest cannot be read" in found["a"][1]
            assert "tensor.onnx" in found["b"][1]
            assert found["both"] == ("UNAVAILABLE", f"it needs a: {found['a'][1]}")
            assert found["steps"] == ("UNAVAILABLE", f"it needs both: {found['both'][1]}")
            with pytest.raises(NotReady, match="the manifest cannot be read"):
                gateway.plane.find("steps")
            assert shown(gateway) == {"a": 1, "b": 1, "both": 1, "steps": 1, "c": 0, "c-alone": 0}
            for name in ("a", "b"):
                await gateway.repository.unload(name)
            assert shown(gateway) == {"c": 0, "c-alone": 0}

    run(scenario())


def shown(gateway: InProcess) -> dict[str, float]:
    """What metrics say of models: 1 is unavailable."""
    found = total(read_files(gateway.metrics.folder))["convoy_model_unavailable"]
    return {dict(labels)["model"]: float(value[0]) for labels, value in found.items()}


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


def test_a_new_catalog_is_in_effect_but_for_what_cannot_be_loaded(settings: Settings, tmp_path: Path) -> None:
    document = settings.model_dump()
    a, b = document["models"]
    bad = write_artifact(tmp_path / "bad", "bad")
    (bad / "image.onnx").write_bytes(b"broken")
    changed = {
        "models": [a | {"artifact": str(bad)}, b | {"max_batch": 2}, {"name": "new", "artifact": str(bad)}],
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
            assert {one.name for one in gateway.repository.problems()} == {"a", "new", "never"}
            await gateway.repository.declare(settings.catalog)
            assert gateway.repository.problems() == []
            with pytest.raises(NotFound, match="unknown model"):
                gateway.plane.find("new")

    run(scenario())


class Gated(InProcess):
    """A gateway whose model "slow" is loaded when the test lets it, as one whose host comes late."""

    gate: asyncio.Event

    async def connect(self, model: ModelConfig, artifact: Artifact) -> Executor:
        if model.name == "slow":
            await self.gate.wait()
        return await super().connect(model, artifact)


def test_a_model_that_takes_long_holds_up_no_other_one(settings: Settings, tmp_path: Path) -> None:
    document = settings.model_dump()
    a, b = document["models"]
    slow = {"name": "slow", "artifact": a["artifact"], "placement": "dedicated"}
    first = document | {"ensembles": [{"name": "of-a", "members": [{"model": "a"}]}]}
    second = document | {"models": [b, slow], "ensembles": [{"name": "of-slow", "members": [{"model": "slow"}]}]}

    async def scenario() -> None:
        gateway = Gated(settings, Revisions(), "gateway")
        gateway.gate = asyncio.Event()
        gateway.repository.start()
        await gateway.repository.declare(parse_settings(first).catalog)
        declaring = asyncio.create_task(gateway.repository.declare(parse_settings(second).catalog))
        while "slow" not in states(gateway):  # noqa: ASYNC110 it comes by another task
            await asyncio.sleep(0)
        with pytest.raises(NotReady, match="being loaded"):
            gateway.plane.find("slow")
        await gateway.repository.unload("b")
        await gateway.repository.load("b")
        assert not declaring.done()
        gateway.plane.find("of-a")  # what is gone from the catalog serves until what is new does
        gateway.gate.set()
        await declaring
        gateway.plane.find("of-slow")
        assert set(states(gateway)) == {"b", "slow", "of-slow"}
        gateway.repository.close()

    run(scenario())


class Broken(InProcess):
    """A gateway in which the engine of "a" cannot be made ready after it has been loaded."""

    async def connect(self, model: ModelConfig, artifact: Artifact) -> Executor:
        executor = await super().connect(model, artifact)
        if model.name == "a":
            executor.inputs = {}
        return executor


@pytest.mark.parametrize("kind", [InProcess, Broken])
def test_a_load_that_fails_again_and_again_leaves_nothing_behind(
    settings: Settings, tmp_path: Path, kind: type[InProcess]
) -> None:
    async def scenario() -> None:
        threads = engine_threads()
        gateway = kind(settings, Revisions(), "gateway")
        gateway.repository.start()
        await gateway.repository.declare(settings.catalog)
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
        assert engines(gateway) == {"b"}
        gateway.repository.close()

    run(scenario())


def engine_threads() -> int:
    return sum(thread.name == "engine-a" for thread in threading.enumerate())


def engines(gateway: InProcess) -> set[str]:
    """The models of which metrics say that a process holds an engine."""
    return {dict(labels)["model"] for labels in total(read_files(gateway.metrics.folder))["convoy_engine_replicas"]}


def test_a_model_that_is_replaced_still_counts_as_an_engine(settings: Settings) -> None:
    async def scenario() -> None:
        async with following(settings, Revisions(), "gateway") as (gateway,):
            a, b = settings.models
            changed = settings.catalog.model_copy(update={"models": (a.model_copy(update={"max_batch": 2}), b)})
            await gateway.repository.declare(changed)
            found = total(read_files(gateway.metrics.folder))
            for name in ("convoy_engine_replicas", "convoy_engine_info"):
                counts = {dict(labels)["model"]: float(value[0]) for labels, value in found[name].items()}
                assert counts == {"a": 1, "b": 1}

    run(scenario())


def test_what_is_made_of_models_stays_when_another_one_changes(settings: Settings) -> None:
    """An ensemble that is made anew is closed, and answers 503 to what was being decoded for it."""
    document = settings.model_dump() | {"ensembles": [{"name": "of-a", "members": [{"model": "a"}]}]}

    async def scenario() -> None:
        async with following(parse_settings(document), Revisions(), "gateway") as (gateway,):
            before = gateway.plane.find("of-a")
            await gateway.repository.unload("b")
            assert gateway.plane.find("of-a") is before
            before.batcher.admit(1, 1e12)

    run(scenario())


class Away:
    """A steward that does not answer."""

    async def set_loaded(self, model: str, loaded: bool, known: Revision) -> Change:
        raise NotReady("the steward is away")

    async def follow(self, follower: str, known: Revision, report: Report) -> Revision:
        raise NotReady("the steward is away")

    async def report(self, follower: str, report: Report) -> None:
        raise NotReady("the steward is away")


def test_without_a_steward_the_declared_models_serve(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.gateway.repository.FIRST_SECONDS", 0.01)

    async def scenario() -> None:
        gateway = InProcess(settings, Away(), "gateway")
        gateway.repository.start()
        await gateway.repository.declare(settings.catalog)
        gateway.plane.find("a")
        with pytest.raises(NotReady, match="away"):
            await gateway.repository.unload("a")
        gateway.plane.find("a")
        gateway.repository.close()

    asyncio.run(scenario())
