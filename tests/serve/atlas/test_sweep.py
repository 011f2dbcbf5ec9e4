"""Sweeps: measurements that continue after a stop, failures, confidence intervals, the data file and the page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convoy.errors import ConfigError, NotFound
from models.artifact import BUNDLED, Artifact
from models.engines.backends.registry import find_backend
from models.engines.store.store import Store
from serve.atlas.data import Accuracy, Cell, Network, load_atlas, save_atlas
from serve.atlas.measure import median_interval
from serve.atlas.sweep import Plan, open_atlas, sweep, this_machine
from serve.atlas.variants import Variant
from serve.atlas.view import document, write_page
from serve.config.schema import Power
from tests.artifacts import write_artifact
from tests.serve.atlas.atlases import MACHINE, atlas_of, cell, network

EMPTY = json.loads(atlas_of([], []).model_dump_json())
ORPHAN = json.loads(atlas_of([], [cell(network("n", 1, 0.5), 1, 0.1)]).model_dump_json())


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return Artifact.load(write_artifact(tmp_path_factory.mktemp("atlas") / "quadrants", "quadrants", convolution=True))


def test_a_stopped_sweep_continues_where_it_stopped(artifact: Artifact, tmp_path: Path) -> None:
    path = tmp_path / "atlas.json"
    power = Power(idle_watts=40, busy_watts=95)
    first = sweep(Plan([artifact], [1], 0.02, 1, power), path)
    seen: list[tuple[str, int]] = []

    def report(measured: Network, batch: int, result: Cell | None) -> None:
        seen.append((measured.name, batch))
        assert result is not None

    both = sweep(Plan([artifact], [1, 4], 0.02, 1, power), path, report)
    assert both.cells[0] == first.cells[0], "a finished cell is not measured again"
    assert seen == [("quadrants", 1), ("quadrants", 4)]
    assert load_atlas(path) == both
    for measurement in both.cells:
        assert measurement.seconds.low <= measurement.seconds.median <= measurement.seconds.high
        assert measurement.runs >= 5
        assert measurement.memory_bytes > 0
        assert measurement.power is not None


def test_a_network_that_cannot_run_is_a_failure_and_larger_batches_are_skipped(
    artifact: Artifact, tmp_path: Path
) -> None:
    broken = Artifact(tmp_path, artifact.manifest)
    broken.image_model.write_bytes(b"no graph")
    atlas = sweep(Plan([broken], [1, 4], 0.02, 1), tmp_path / "atlas.json")
    assert atlas.cells == ()
    assert [failure.batch for failure in atlas.failures] == [1, 4]
    assert "cannot be loaded" in atlas.failures[0].reason
    assert "smaller batch" in atlas.failures[1].reason
    broken.image_model.write_bytes(artifact.image_model.read_bytes())
    repaired = sweep(Plan([broken], [1, 4], 0.02, 1), tmp_path / "atlas.json")
    assert ([measurement.batch for measurement in repaired.cells], repaired.failures) == ([1, 4], ()), (
        "a failed cell is measured again"
    )


def test_every_engine_is_measured_in_every_supported_precision(artifact: Artifact, tmp_path: Path) -> None:
    plan = Plan(
        [artifact], [1], 0.02, 1, engines=("onnxruntime", "openvino"), precisions=("fp32", "int8"),
        store=Store(tmp_path / "engines"),
    )  # fmt: skip
    atlas = sweep(plan, tmp_path / "atlas.json")
    assert [atlas.network(measurement.network).label for measurement in atlas.cells] == [
        "quadrants",
        "quadrants fp32 openvino",
    ]
    reasons = {failure.network.split()[1]: failure.reason for failure in atlas.failures}
    assert set(reasons) == {"onnxruntime", "openvino"}
    assert all("no validation set" in reason and "--calibration" in reason for reason in reasons.values())
    assert load_atlas(tmp_path / "atlas.json") == atlas


def test_an_unknown_engine_is_refused(artifact: Artifact, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="openvino"):
        sweep(Plan([artifact], [1], engines=("openvin",)), tmp_path / "atlas.json")


@pytest.mark.slow
def test_the_accuracy_of_a_precision_is_measured_with_its_engine(tmp_path: Path) -> None:
    lenet = Artifact.load(BUNDLED / "lenet5-mnist")
    plan = Plan([lenet], [1], 0.02, precisions=("fp32", "int8"), store=Store(tmp_path / "engines"))
    fp32, int8 = sweep(plan, tmp_path / "atlas.json").networks
    assert fp32.accuracy is not None
    assert int8.accuracy is not None
    assert (int8.precision, int8.accuracy.kind) == ("int8", "measured")
    assert int8.accuracy.top1 == pytest.approx(fp32.accuracy.top1, abs=0.01)
    assert int8.accuracy.how != fp32.accuracy.how


def test_an_atlas_of_another_machine_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "atlas.json"
    save_atlas(atlas_of([], []), path)
    assert open_atlas(path, MACHINE) == atlas_of([], [])
    with pytest.raises(ConfigError, match="--out"):
        open_atlas(path, this_machine(2))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"format": 2}',
        '{"format": 1, "machine": null}',
        json.dumps(EMPTY | {"cells": [{"network": "x"}]}),
        json.dumps(EMPTY | {"colour": "red"}),
        json.dumps(ORPHAN),
    ],
)
def test_the_error_of_a_corrupt_file_names_the_file_and_the_remedy(tmp_path: Path, content: str) -> None:
    path = tmp_path / "atlas.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"atlas\.json is no atlas: .* convoy atlas"):
        load_atlas(path)


def test_the_error_of_a_missing_file_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="convoy atlas"):
        load_atlas(tmp_path / "atlas.json")


@given(st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_the_interval_contains_the_median(count: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=count).tolist()
    interval = median_interval(values)
    assert interval.low <= interval.median <= interval.high
    assert {interval.low, interval.high} <= set(values)


@pytest.mark.parametrize("count", [6, 9, 15, 40])
def test_the_interval_covers_the_median_at_its_confidence_level(count: int) -> None:
    generator = np.random.default_rng(count)
    intervals = [median_interval(generator.normal(size=count).tolist()) for _ in range(2000)]
    assert 0.94 <= np.mean([interval.low <= 0 <= interval.high for interval in intervals]) <= 0.995


def test_the_interval_of_few_values_is_their_range() -> None:
    interval = median_interval([3.0, 1.0, 2.0])
    assert (interval.low, interval.median, interval.high) == (1.0, 2.0, 3.0)


def test_groups_never_mix_published_and_measured_accuracies(artifact: Artifact) -> None:
    nets = [
        network("a", 5, 0.7),
        network("b", 5, 0.9, "cifar10"),
        Variant(artifact, find_backend("onnxruntime"), "fp32").network,
    ]
    contents = document(atlas_of(nets, [cell(net, 1, 0.1) for net in nets]))
    groups = {(group["dataset"], group["kind"]) for group in contents["groups"]}
    assert groups == {("imagenet1k", "published"), ("cifar10", "published")}
    assert [entry["top1"] for entry in contents["cells"]] == [0.7, 0.9, None]


def test_measured_and_published_accuracies_of_one_data_set_do_not_compete() -> None:
    published = network("published", 5, 0.7)
    measured = network("measured", 5, 0.9).model_copy(
        update={"accuracy": Accuracy(top1=0.9, kind="measured", how="a test")}
    )
    contents = document(atlas_of([published, measured], [cell(published, 1, 0.2), cell(measured, 1, 0.1)]))
    assert [group["kind"] for group in contents["groups"]] == ["published", "measured"]
    assert [entry["front"] for entry in contents["cells"]] == [True, True]


def test_the_page_is_one_file_without_external_resources(tmp_path: Path) -> None:
    hostile = network("</script><b>", 5, 0.7)
    write_page(atlas_of([hostile], [cell(hostile, 1, 0.1)]), tmp_path / "atlas.html")
    page = (tmp_path / "atlas.html").read_text()
    assert "</script><b>" not in page
    assert "default-src 'none'" in page
    assert 'src="' not in page.partition("<body>")[0]
    assert 'href="data:,"' in page
