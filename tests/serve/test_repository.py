"""Two gateways and one steward: what is changed through one of them is changed in both."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from convoy.errors import ArtifactError, NotFound, NotReady
from serve.config import Settings, parse_settings
from serve.steward import Revision, Revisions
from tests.artifacts import write_artifact
from tests.serve.listeners import InProcess


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


class Away:
    """A steward that does not answer."""

    async def set_loaded(self, model: str, loaded: bool, known: Revision) -> Revision:
        raise NotReady("the steward is away")

    async def follow(self, follower: str, known: Revision, effective: int) -> Revision:
        raise NotReady("the steward is away")

    async def report(self, follower: str, effective: int) -> None:
        raise NotReady("the steward is away")


def test_without_a_steward_the_declared_models_serve(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.repository.FIRST_SECONDS", 0.01)

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
