"""Ensembles and cascades made from their configuration: members, views, and refused compositions."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from convoy.errors import ConfigError
from models.artifact import Manifest, Preprocessing
from serve.batching.latency_curve import LatencyCurve
from serve.batching.line import BatcherLimits, MemberQueue
from serve.batching.queue_item import QueueItem
from serve.batching.results import Answer
from serve.config.ensembles import CascadeConfig, EnsembleConfig
from serve.config.schema import Catalog, ModelConfig
from serve.ensembles.cascade import Cascade
from serve.ensembles.cost_report import Known, plan_document
from serve.ensembles.ensemble import Ensemble
from serve.ensembles.factory import check_compositions, compose, stages_of
from serve.ensembles.runner import EnsembleRunner

LABELS = ("cat", "dog")


def manifest(size: int = 32, labels: tuple[str, ...] = LABELS, temperature: float | None = None) -> Manifest:
    steps = Preprocessing(3, size, size, (0.0,) * 3, (1.0,) * 3)
    calibration: Mapping[str, Any] = {} if temperature is None else {"temperature": temperature}
    empty = {field.name: "" for field in dataclasses.fields(Manifest)}
    return Manifest(**empty | {"labels": labels, "preprocessing": steps, "macs": 1000, "calibration": calibration})  # type: ignore[arg-type]


class EmptyQueue(EnsembleRunner):
    """A queue without submissions. A batcher would need an event loop, and a composition only refers to the queue."""

    def submit(self, rows: Any, deadline: float, priority: int = 0) -> QueueItem:
        raise AssertionError("nothing is submitted")

    def waiting_rows_of(self, futures: Collection[asyncio.Future[Answer]]) -> int:
        return 0


@dataclass(frozen=True)
class Model:
    manifest: Manifest
    version: str = "3"
    batcher: MemberQueue = field(default_factory=lambda: EmptyQueue(Ensemble([]), BatcherLimits(8, 64)))


def ensemble(*members: Mapping[str, Any], **options: Any) -> EnsembleConfig:
    return EnsembleConfig.model_validate({"name": "e", "members": members} | options)


def cascade(*stages: Mapping[str, Any], **options: Any) -> CascadeConfig:
    return CascadeConfig.model_validate({"name": "c", "stages": stages} | options)


def test_members_with_equal_inputs_share_a_geometry() -> None:
    served = {"a": Model(manifest()), "b": Model(manifest()), "large": Model(manifest(224))}
    config = ensemble({"model": "a"}, {"model": "b"}, {"model": "large"}, {"model": "a", "views": ["flip"]})
    composed = compose(config, {}, served)
    assert isinstance(composed.composition, Ensemble)
    assert [member.geometry for member in composed.composition.members] == [0, 0, 1, 2]
    assert [(geometry.size, geometry.views) for geometry in composed.geometries] == [
        (32, ("identity",)),
        (224, ("identity",)),
        (32, ("flip",)),
    ]
    assert [member.version for member in composed.composition.members] == ["3"] * 4


def test_a_cascade_is_made_of_models_and_ensembles() -> None:
    inner = ensemble({"model": "a"}, {"model": "b", "calibrated": True})
    config = cascade({"model": "a", "entropy": 0.3}, {"model": "b", "views": ["flip"], "margin": 0.2}, {"model": "e"})
    served = {"a": Model(manifest()), "b": Model(manifest(temperature=2.0))}
    composition = compose(config, {"e": inner}, served).composition
    assert isinstance(composition, Cascade)
    assert [(stage.name, stage.measure, stage.threshold) for stage in composition.stages] == [
        ("1-a", "entropy", 0.3),
        ("2-b", "margin", 0.2),
        ("3-e", "margin", 0.0),
    ]
    assert [member.temperature for member in composition.stages[2].ensemble.members] == [1.0, 2.0]


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (ensemble({"model": "a"}, {"model": "other"}), "a and other have different labels"),
        (cascade({"model": "a", "margin": 0.5}, {"model": "other"}), "different labels"),
        (ensemble({"model": "a", "calibrated": True}), "models.calibrate a"),
        (ensemble({"model": "single"}), "fewer than two classes"),
    ],
)
def test_members_that_cannot_be_combined_are_refused_before_the_start(
    config: EnsembleConfig | CascadeConfig, reason: str
) -> None:
    manifests = {"a": manifest(), "other": manifest(labels=("dog", "cat")), "single": manifest(labels=("cat",))}
    models = tuple(ModelConfig(name=name) for name in manifests)
    catalog = (
        Catalog(models=models, ensembles=(config,))
        if isinstance(config, EnsembleConfig)
        else Catalog(models=models, cascades=(config,))
    )
    with pytest.raises(ConfigError, match=reason):
        check_compositions(catalog, manifests)


def test_a_cascade_cannot_set_the_views_of_an_ensemble() -> None:
    models = (ModelConfig(name="a"),)
    inner = ensemble({"model": "a"})
    outer = cascade({"model": "a", "margin": 0.5}, {"model": "e", "views": ["flip"]})
    with pytest.raises(ValueError, match="e is an ensemble; set views and calibrated on its members"):
        Catalog(models=models, ensembles=(inner,), cascades=(outer,))


def test_the_cost_report_sums_rows_macs_and_engine_time() -> None:
    curve = LatencyCurve((1, 4), (0.001, 0.002))
    config = cascade({"model": "a", "margin": 0.5}, {"model": "b", "views": ["shift", "flip"]})
    known = {"a": Known(manifest(), curve, 4), "b": Known(manifest(), curve, 4)}
    first, second = plan_document(config, stages_of(config, {}), known)["stages"]
    assert (first["engine_ms_per_image"], first["macs_per_image"]) == (1.0, 1000)
    assert second["members"][0]["rows_per_image"] == 10
    # Ten rows are two batches of four and one of two, which takes 1.333 ms by the latency curve.
    assert second["members"][0]["engine_ms_per_image"] == pytest.approx(2 * 2 + 1.333)
    assert second["engine_ms_per_image"] == pytest.approx(1 + 2 * 2 + 1.333)
    assert second["macs_per_image"] == 11_000
    unmeasured = plan_document(config, stages_of(config, {}), {name: Known(manifest()) for name in "ab"})
    assert unmeasured["stages"][1]["engine_ms_per_image"] is None
