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
ways = st.builds(
    Measured,
    engine=st.sampled_from(["a", "b"]),
    precision=st.just("fp32"),
    threads=st.just(1),
    batch=st.integers(1, 64),
    images_per_second=st.floats(1, 1e5),
    p99_seconds=st.floats(1e-4, 1),
    runs=st.just(20),
)


class Ticking:
    """An engine whose run takes as many ticks of the clock as there are rows."""

    input = TensorSpec("image", np.dtype(np.uint8), (-1, 2, 2, 1))
    output = TensorSpec("logits", np.dtype(np.float32), (-1, 3))

    def __init__(self) -> None:
        self.now = 0.0

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        self.now += len(batch) / 1000
        return np.zeros((len(batch), 3), np.float32)


@given(st.lists(ways, min_size=1), st.floats(1e-3, 1))
def test_the_fastest_that_keeps_to_the_target_is_chosen(measured: list[Measured], slo: float) -> None:
    fitting = [one for one in measured if one.request_seconds <= slo]
    if not fitting:
        with pytest.raises(ConfigError, match="no engine answers within"):
            choose(measured, slo)
        return
    best = choose(measured, slo)
    assert best in fitting
    assert all(one.images_per_second <= best.images_per_second for one in fitting)


def test_batches_grow_until_one_is_too_slow() -> None:
    engine = Ticking()
    found = measure(BLANK, engine, (1, 2, 4, 8, 16), 0.01, 0.0, lambda: engine.now)
    assert [one.batch for one in found] == [1, 2, 4, 8]
    assert [round(one.p99_seconds, 6) for one in found] == [0.001, 0.002, 0.004, 0.008]
    assert {one.runs for one in found} == {FEWEST_RUNS}
    assert choose(found, 0.01).batch in {1, 2, 4}


def test_it_runs_as_long_as_it_is_told() -> None:
    ticks: Iterator[int] = count()
    found = measure(BLANK, Ticking(), (1,), 1e9, 300.0, lambda: float(next(ticks)))
    assert found[0].runs > FEWEST_RUNS


def test_threads_go_up_to_all_cores() -> None:
    assert [thread_counts(cores) for cores in (1, 2, 6)] == [[1], [1, 2], [1, 2, 4, 6]]


def test_what_the_gate_does_not_accept_is_not_tried(tmp_path: Path) -> None:
    """The artifact has no images of its own: half floats stay unproven, int8 cannot be calibrated."""
    model = ModelConfig(name="a", artifact=str(write_artifact(tmp_path / "a", "a", convolution=True)), max_batch=2)
    measured, skipped = explore(model, Store(tmp_path / "store"), 1, 10.0, 0.0)
    assert {(one.engine, one.precision) for one in measured} == {("onnxruntime", "fp32"), ("openvino", "fp32")}
    assert {one.batch for one in measured} == {1, 2}
    reasons = {(one.engine, one.precision): one.reason for one in skipped}
    assert "--calibration" in reasons["onnxruntime", "int8"]
    assert all(reason.startswith("unproven") for (_, precision), reason in reasons.items() if precision != "int8")
