"""Stored latency curves: when they are measured again, and when they are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from convoy.cli.explain import static_plan
from models.artifact import Artifact
from models.engines.store.store import Store
from serve.batching.latency_curve import LatencyCurve, in_milliseconds, measure_curve, warm_up
from serve.config.loading import parse_settings
from serve.config.schema import ModelConfig
from serve.config.thread_plan import plan_threads
from serve.executors import engine_set
from serve.executors.curve_store import CurveStore
from serve.executors.engine_selection import build_spec
from serve.executors.engine_set import EngineSet, load_engines
from serve.telemetry.mmap_store import MmapWriter
from serve.telemetry.recorder import Metrics
from tests.artifacts import write_artifact

CURVE = LatencyCurve((1, 2, 4), (0.001, 0.002, 0.003), "onnxruntime 1 fp32")


@pytest.fixture
def model(tmp_path: Path) -> ModelConfig:
    folder = write_artifact(tmp_path / "a", "a")
    return ModelConfig(name="a", artifact=str(folder), max_batch=4)


def load(model: ModelConfig, tmp_path: Path, threads: int = 1) -> EngineSet:
    metrics = Metrics(MmapWriter(tmp_path / "metrics"))
    spec = build_spec(model, Artifact.load(model.folder))
    return load_engines(model, spec, Store(tmp_path / "store"), threads, metrics)


def test_the_second_load_does_not_measure_again(
    model: ModelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It still runs every size once, so that no request is the first of its size, which would be slow."""
    measured: list[tuple[int, ...]] = []
    warmed: list[tuple[int, ...]] = []

    def measure(engine: Any, sizes: Any) -> LatencyCurve:
        measured.append(tuple(sizes))
        return measure_curve(engine, sizes)

    def warm(engine: Any, sizes: Any) -> None:
        warmed.append(tuple(sizes))
        warm_up(engine, sizes)

    monkeypatch.setattr(engine_set, "measure_curve", measure)
    monkeypatch.setattr(engine_set, "warm_up", warm)
    first = load(model, tmp_path).curve
    assert (measured, warmed) == ([(1, 2, 4)], [(1, 2, 4)])
    assert load(model, tmp_path).curve == first
    assert (measured, warmed[1:]) == ([(1, 2, 4)], [(1, 2, 4)] * 2)
    assert load(model.model_copy(update={"threads": 2}), tmp_path).curve.sizes == (1, 2, 4)
    load(model.model_copy(update={"max_batch": 8}), tmp_path)
    assert measured == [(1, 2, 4), (1, 2, 4), (1, 2, 4, 8)]


def test_long_runs_of_the_tensor_form_are_not_warmed_up(
    model: ModelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image form still runs every size. A first run that is long costs little more than later ones."""
    warmed: list[tuple[str, tuple[int, ...]]] = []

    def warm(engine: Any, sizes: Any) -> None:
        warmed.append((str(engine.input.dtype), tuple(sizes)))
        warm_up(engine, sizes)

    slow = LatencyCurve((1, 2, 4), (0.2, 0.09, 0.3))
    monkeypatch.setattr(engine_set, "measure_curve", lambda engine, sizes: slow)
    monkeypatch.setattr(engine_set, "warm_up", warm)
    load(model, tmp_path)
    load(model, tmp_path)
    assert warmed == [("float32", (1, 2)), ("uint8", (1, 2, 4)), ("float32", (1, 2))]


def test_explain_shows_the_curve_of_an_earlier_start(model: ModelConfig, tmp_path: Path) -> None:
    settings = parse_settings({"models": [model.model_dump(mode="json")], "engines": str(tmp_path / "store")})
    assert static_plan(settings)["models"][0]["curve_ms"] == {}
    curve = load(model, tmp_path, plan_threads(settings).local).curve
    assert static_plan(settings)["models"][0]["curve_ms"] == in_milliseconds(curve) != {}


def test_a_curve_is_valid_only_for_the_same_engine_version_threads_and_sizes(tmp_path: Path) -> None:
    curves = CurveStore(Store(tmp_path), 2, (1, 2, 4))
    curves.keep("engine", CURVE)
    assert curves.find("engine", CURVE.engine) == CURVE
    assert curves.find("another", CURVE.engine) is None
    assert curves.find("engine", "onnxruntime 2 fp32") is None
    for threads, sizes in ((1, (1, 2, 4)), (2, (1, 2))):
        assert CurveStore(Store(tmp_path), threads, sizes).find("engine", CURVE.engine) is None


@pytest.mark.parametrize("content", [b"", b"\xff{", b"[]", b'{"sizes": [1], "seconds": [1], "engine": "e"}'])
def test_a_damaged_curve_is_measured_again(tmp_path: Path, content: bytes) -> None:
    curves = CurveStore(Store(tmp_path), 2, (1, 2, 4))
    curves.keep("engine", CURVE)
    (file,) = Store(tmp_path).curves.iterdir()
    file.write_bytes(content)
    assert curves.find("engine", CURVE.engine) is None


def test_a_store_that_cannot_be_written_is_not_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    curves = CurveStore(Store(tmp_path / "file"), 2, (1, 2, 4))
    curves.keep("engine", CURVE)
    assert curves.find("engine", CURVE.engine) is None
