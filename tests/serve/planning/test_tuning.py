"""Tuning: measurements of engines, precisions, threads and batches, and the choice of the fastest within a target."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from convoy.errors import ConfigError
from models.engines.engine import TensorSpec
from models.engines.store.store import Store
from serve.config.schema import ModelConfig
from serve.planning.tuning import FEWEST_RUNS, Measured, choose, explore, measure, thread_counts
from tests.artifacts import write_artifact

BLANK = Measured("onnxruntime", "fp32", 1, 0, 0.0, 0.0, 0)
measurements = st.builds(
    Measured,
    engine=st.sampled_from(["a", "b"]),
    precision=st.just("fp32"),
    threads=st.just(1),
    batch=st.integers(1, 64),
    images_per_second=st.floats(1, 1e5),
    p99_seconds=st.floats(1e-4, 1),
    runs=st.just(20),
)


class LinearEngine:
    """An engine whose run takes one millisecond of its own clock for each row."""

    input = TensorSpec("image", np.dtype(np.uint8), (-1, 2, 2, 1))
    output = TensorSpec("logits", np.dtype(np.float32), (-1, 3))

    def __init__(self) -> None:
        self.now = 0.0

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        self.now += len(batch) / 1000
        return np.zeros((len(batch), 3), np.float32)


@given(st.lists(measurements, min_size=1), st.floats(1e-3, 1))
def test_the_fastest_engine_within_the_target_is_chosen(measured: list[Measured], slo: float) -> None:
    fitting = [candidate for candidate in measured if candidate.request_seconds <= slo]
    if not fitting:
        with pytest.raises(ConfigError, match="no engine answers within"):
            choose(measured, slo)
        return
    best = choose(measured, slo)
    assert best in fitting
    assert all(candidate.images_per_second <= best.images_per_second for candidate in fitting)


def test_batches_grow_until_a_run_exceeds_the_target() -> None:
    engine = LinearEngine()
    found = measure(BLANK, engine, (1, 2, 4, 8, 16), 0.01, 0.0, lambda: engine.now)
    assert [result.batch for result in found] == [1, 2, 4, 8]
    assert [round(result.p99_seconds, 6) for result in found] == [0.001, 0.002, 0.004, 0.008]
    assert {result.runs for result in found} == {FEWEST_RUNS}
    assert choose(found, 0.01).batch in {1, 2, 4}


def test_a_measurement_lasts_as_long_as_configured() -> None:
    ticks: Iterator[int] = count()
    found = measure(BLANK, LinearEngine(), (1,), 1e9, 300.0, lambda: float(next(ticks)))
    assert found[0].runs > FEWEST_RUNS


def test_threads_go_up_to_all_cores() -> None:
    assert [thread_counts(cores) for cores in (1, 2, 6)] == [[1], [1, 2], [1, 2, 4, 6]]


def test_engines_without_a_passed_accuracy_check_are_skipped(tmp_path: Path) -> None:
    """The artifact has no evaluation data: reduced precisions cannot be checked, and int8 cannot be calibrated."""
    model = ModelConfig(name="a", artifact=str(write_artifact(tmp_path / "a", "a", convolution=True)), max_batch=2)
    measured, skipped = explore(model, Store(tmp_path / "store"), 1, 10.0, 0.0)
    assert {(result.engine, result.precision) for result in measured} == {("onnxruntime", "fp32"), ("openvino", "fp32")}
    assert {result.batch for result in measured} == {1, 2}
    reasons = {(way.engine, way.precision): way.reason for way in skipped}
    assert "--calibration" in reasons["onnxruntime", "int8"]
    assert all(reason.startswith("unproven") for (_, precision), reason in reasons.items() if precision != "int8")
