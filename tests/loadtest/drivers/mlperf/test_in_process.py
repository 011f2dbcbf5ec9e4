"""Every scenario against an ONNX graph in process, with real LoadGen."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto
from PIL import Image

from convoy.errors import ConfigError
from loadtest.drivers.mlperf.driver import run_mlperf
from loadtest.drivers.mlperf.in_process import GraphSubject
from loadtest.drivers.mlperf.plan import MlperfPlan, Scenario
from loadtest.plan import Payload
from tests.loadtest.drivers.mlperf.graphs import SIDE, class_of, tensor_subject, write_graph
from tests.loadtest.drivers.mlperf.views import Recorded


@pytest.mark.parametrize("scenario", ["single-stream", "multi-stream", "server", "offline"])
def test_every_scenario_is_measured(scenario: Scenario, tmp_path: Path) -> None:
    view = Recorded()
    qps = 200.0 if scenario == "server" else None
    plan = MlperfPlan(tensor_subject(tmp_path), scenario, tmp_path / "logs", qps=qps, duration_s=0.5, latency_ms=900)
    report = run_mlperf(plan, view)
    assert report.result is not None
    assert report.seconds >= 0.5
    assert report.answered > 0
    assert report.failed == 0
    per_query = 8 if scenario == "multi-stream" else report.answered if scenario == "offline" else 1
    assert report.answered == report.result.queries * per_query
    assert (report.result.scheduled_per_s is not None) == (scenario == "server")
    assert (report.result.samples_per_s is not None) == (scenario == "offline")
    assert report.bound_kept is (True if scenario == "server" else None)
    if scenario != "offline":
        assert 0 < report.result.latency_ms["p50"] <= report.result.latency_ms["p99"] <= report.result.latency_ms["max"]
    assert "600 s" in report.submission_gaps[0]
    assert view.phases[:2] == ["warm-up", scenario]
    if scenario != "offline":  # which runs again if the machine was faster than in the warm-up
        assert len(view.phases) == 2
    assert (tmp_path / "logs" / "mlperf_log_summary.txt").stat().st_size > 100


def test_the_server_scenario_searches_its_rate(tmp_path: Path) -> None:
    plan = MlperfPlan(tensor_subject(tmp_path), "server", tmp_path / "logs", duration_s=0.3, latency_ms=900)
    report = run_mlperf(plan, Recorded())
    assert report.search
    kept = [step.qps for step in report.search if step.kept]
    assert report.target_qps is not None
    assert report.target_qps <= max(kept)
    assert (tmp_path / "logs" / "search-1" / "mlperf_log_detail.txt").exists()


def test_accuracy_mode_sends_each_image_once_and_checks_its_label(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    generator = np.random.default_rng(3)
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("file", "label"))
        for number in range(21):
            pixels = generator.integers(0, 256, (SIDE, SIDE), np.uint8)
            Image.fromarray(pixels).save(photos / f"{number}.png")
            wrong = number < 6
            table.writerow((f"{number}.png", (class_of(pixels) + wrong) % 10))
    path = write_graph(tmp_path / "image.onnx", TensorProto.UINT8, ("n", SIDE, SIDE, 1))
    payload = Payload("folder", str(photos), "csv", str(tmp_path / "labels.csv"))
    plan = MlperfPlan(GraphSubject(path, payload, 4, 1), "offline", tmp_path / "logs", accuracy=True, duration_s=0.5)
    report = run_mlperf(plan, Recorded())
    assert report.result is None
    assert (report.answered, report.labelled, report.failed) == (21, 21, 0)
    assert report.accuracy == pytest.approx(15 / 21)
    assert report.accuracy_interval is not None
    assert report.accuracy_interval.low < 15 / 21 < report.accuracy_interval.high
    assert (tmp_path / "logs" / "mlperf_log_accuracy.json").read_text().count("qsl_idx") == 21


def test_a_fixed_batch_of_one_is_obeyed(tmp_path: Path) -> None:
    path = write_graph(tmp_path / "one.onnx", shape=(1, 3, 4, 4))
    system = GraphSubject(path, Payload("tensor", count=3), 4, 1).open(1)
    try:
        system.on_complete = lambda ids, classes: sizes.append(len(ids))
        sizes: list[int] = []
        system.issue([1, 2, 3], [0, 1, 2])
    finally:
        system.close()
    assert set(sizes) <= {1}


@pytest.mark.parametrize(
    ("kind", "shape", "payload", "text"),
    [
        (TensorProto.FLOAT, (4, 3, 4, 4), Payload("tensor"), "dynamic batch dimension"),
        (TensorProto.FLOAT, ("n", 3, 4, 4), Payload(), "use --tensor"),
        (TensorProto.DOUBLE, ("n", 3, 4, 4), Payload("tensor"), "takes tensor\\(double\\)"),
        (TensorProto.UINT8, ("n", SIDE, SIDE, 1), Payload(side=9, format="png"), "8x8 pixels, not 9x9"),
    ],
)
def test_a_graph_that_does_not_fit_is_refused_with_the_remedy(
    kind: int, shape: tuple[int | str, ...], payload: Payload, text: str, tmp_path: Path
) -> None:
    path = write_graph(tmp_path / "graph.onnx", kind, shape)
    with pytest.raises(ConfigError, match=text):
        GraphSubject(path, payload, 4, 1).open(1)


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "not.onnx").write_bytes(b"no graph")
    with pytest.raises(ConfigError, match="cannot be loaded by ONNX Runtime"):
        GraphSubject(tmp_path / "not.onnx", Payload("tensor"), 4, 1).open(1)


def test_text_labels_are_refused_in_process(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    Image.new("L", (SIDE, SIDE)).save(tmp_path / "cat" / "1.png")
    path = write_graph(tmp_path / "image.onnx", TensorProto.UINT8, ("n", SIDE, SIDE, 1))
    with pytest.raises(ConfigError, match="'cat' is no class number"):
        GraphSubject(path, Payload("folder", str(tmp_path), "folder"), 4, 1).open(1)
