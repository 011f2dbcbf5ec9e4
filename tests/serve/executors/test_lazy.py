"""Models that share a memory budget, loaded and evicted by requests to a gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from convoy.errors import ArtifactError, ConfigError
from models.artifact import Artifact
from models.engines.spec import EngineSpec
from serve.api.explain import explain
from serve.config.schema import ModelConfig, Settings
from serve.executors.engine_selection import build_spec
from serve.executors.lazy import LazyExecutor, check_memory, memory_of
from serve.gateway.endpoints import ModelEndpoint
from serve.telemetry.definitions import EVICTIONS, LOADS
from tests.artifacts import quadrant_png, write_artifact
from tests.serve.listeners import GatewaySettings, Serving, serving

T = TypeVar("T")
NAMES = ("a", "b", "c")


@pytest.fixture
def settings(tmp_path: Path, gateway_settings: GatewaySettings) -> Settings:
    """Three models and a budget for one of them."""
    models = [{"name": name, "artifact": str(write_artifact(tmp_path / name, name))} for name in NAMES]
    budget = 1.5 * memory_of(Artifact.load(tmp_path / "a")) / 2**20
    return gateway_settings(models=models, models_memory_mb=budget)


@pytest.fixture
def gateway(settings: Settings) -> Iterator[Serving]:
    with serving(settings) as running:
        yield running


def executor(gateway: Serving, name: str) -> LazyExecutor:
    endpoint = gateway.plane.endpoints.by_name[name]
    assert isinstance(endpoint, ModelEndpoint)
    assert isinstance(endpoint.executor, LazyExecutor)
    return endpoint.executor


def loaded(gateway: Serving) -> set[str]:
    return {name for name in NAMES if executor(gateway, name).loaded}


def classify(gateway: Serving, name: str, quadrant: int = 1) -> httpx.Response:
    return httpx.post(f"{gateway.http}/v1/models/{name}/classify", content=quadrant_png(quadrant), timeout=60)


def on_loop(gateway: Serving, work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run_coroutine_threadsafe(work, gateway.loop).result(60)


def count(gateway: Serving, name: str) -> tuple[float, float]:
    """Loads and evictions until now. They are read on the event loop, because a metrics file belongs to one thread."""

    async def read() -> tuple[float, float]:
        loads, evictions = (gateway.metrics.values(metric, model=name, version="1") for metric in (LOADS, EVICTIONS))
        return float(loads[0]), float(evictions[0])

    return on_loop(gateway, read())


def test_a_first_request_loads_its_model_and_evicts_another(gateway: Serving) -> None:
    assert loaded(gateway) == {"a"}
    assert classify(gateway, "c", 2).json()["predictions"][0]["classes"][0]["label"] == "bottom left"
    assert loaded(gateway) == {"c"}
    assert (count(gateway, "a"), count(gateway, "b"), count(gateway, "c")) == ((1, 1), (0, 0), (1, 0))
    assert classify(gateway, "a").status_code == 200
    assert (count(gateway, "a"), count(gateway, "c")) == ((2, 1), (1, 1))


def test_concurrent_first_requests_load_a_model_once(gateway: Serving) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda quadrant: classify(gateway, "b", quadrant), [0, 1, 2, 3] * 4))
    tops = [answer.json()["predictions"][0]["classes"][0]["index"] for answer in answers]
    assert tops == [0, 1, 2, 3] * 4
    assert count(gateway, "b") == (1, 0)


def test_models_that_evict_each_other_all_answer(gateway: Serving) -> None:
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda name: classify(gateway, name).status_code, NAMES * 10))
    assert answers == [200] * 30
    assert len(loaded(gateway)) == 1
    loads, evictions = (sum(counts) for counts in zip(*(count(gateway, name) for name in NAMES), strict=True))
    assert loads == evictions + 1


def test_a_model_that_is_not_loaded_is_ready_for_clients(gateway: Serving) -> None:
    assert {entry.state for entry in gateway.repository.index()} == {"READY"}
    for path in ("health/ready", "models/c/ready", "models/c-tensor/ready"):
        assert httpx.get(f"{gateway.http}/v2/{path}").status_code == 200
    config = httpx.get(f"{gateway.http}/v2/models/c/config").json()
    assert config["max_batch_size"] == 32
    assert loaded(gateway) == {"a"}


def test_explain_shows_which_models_are_in_memory(gateway: Serving, settings: Settings) -> None:
    plan = explain(gateway.plane, settings)
    assert [(model["name"], model["in_memory"], bool(model["curve_ms"])) for model in plan["models"]] == [
        ("a", True, True),
        ("b", False, False),
        ("c", False, False),
    ]
    assert plan["models_memory_mb"] == settings.models_memory_mb


def test_a_damaged_artifact_is_reported_and_tried_again(
    gateway: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve.executors.lazy.AGAIN_SECONDS", 60.0)
    model = tmp_path / "c" / "image.onnx"
    content = model.read_bytes()
    model.write_bytes(b"broken")
    answer = classify(gateway, "c")
    assert answer.status_code == 503
    assert "could not be loaded" in answer.text
    entry = next(entry for entry in gateway.repository.index() if entry.name == "c")
    assert (entry.state, "image.onnx" in entry.reason) == ("UNAVAILABLE", True)
    assert httpx.get(f"{gateway.http}/v2/models/c/ready").status_code == 503
    model.write_bytes(content)
    gateway.loop.call_soon_threadsafe(executor(gateway, "c")._allow_retry)  # as if AGAIN_SECONDS had passed
    assert classify(gateway, "c").status_code == 200
    assert httpx.get(f"{gateway.http}/v2/models/c/ready").status_code == 200
    assert {entry.state for entry in gateway.repository.index()} == {"READY"}


def test_a_model_that_cannot_be_loaded_evicts_no_other(
    gateway: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve.executors.lazy.AGAIN_SECONDS", 60.0)
    model = tmp_path / "c" / "tensor.onnx"
    content = model.read_bytes()
    model.write_bytes(b"broken")
    assert classify(gateway, "c").status_code == 503
    assert loaded(gateway) == {"a"}
    assert count(gateway, "a") == (1, 0)
    with pytest.raises(ArtifactError, match=r"tensor\.onnx"):
        on_loop(gateway, gateway.repository.load("c"))
    model.write_bytes(content)
    on_loop(gateway, gateway.repository.load("c"))  # an explicit load does not wait for the next attempt
    assert {entry.state for entry in gateway.repository.index()} == {"READY"}
    assert classify(gateway, "c").status_code == 200


def test_an_unloaded_model_frees_its_memory(gateway: Serving) -> None:
    on_loop(gateway, gateway.repository.unload("a"))
    assert classify(gateway, "b").status_code == 200
    assert count(gateway, "a") == (1, 0)
    on_loop(gateway, gateway.repository.load("a"))
    assert not executor(gateway, "a").loaded
    assert classify(gateway, "a").status_code == 200


def test_a_model_larger_than_the_budget_is_refused_at_the_start(settings: Settings) -> None:
    artifacts = {model.name: Artifact.load(model.folder) for model in settings.models}
    smaller = settings.model_copy(update={"models_memory_mb": settings.models_memory_mb / 2})
    with pytest.raises(ConfigError, match="a takes at least"):
        check_memory(smaller, artifacts)
    check_memory(settings, artifacts)


def test_the_executor_tells_which_engines_were_ever_loaded(gateway: Serving) -> None:
    first, second = executor(gateway, "a"), executor(gateway, "b")
    assert (first.loaded, first.measured, first.memory.loaded) == (True, True, True)
    assert (second.loaded, second.measured, second.memory.loaded) == (False, False, False)
    assert second.memory.size > 0
    assert classify(gateway, "b").status_code == 200
    assert (first.loaded, first.measured) == (False, True)  # an evicted engine keeps its curve
    assert (second.loaded, second.measured) == (True, True)


def test_a_reload_reuses_the_build_spec(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []

    def count_specs(model: ModelConfig, artifact: Artifact) -> EngineSpec:
        built.append(model.name)
        return build_spec(model, artifact)

    monkeypatch.setattr("serve.executors.lazy.build_spec", count_specs)
    with serving(settings) as gateway:
        for name in ("b", "a", "b"):
            assert classify(gateway, name).status_code == 200
        assert [count(gateway, name)[0] for name in NAMES] == [2, 2, 0]
    assert sorted(built) == list(NAMES)
