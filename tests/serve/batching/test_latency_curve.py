"""The latency curve: batch sizes, measurement, predictions and limits."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.engines.engine import TensorSpec
from serve.batching.latency_curve import LatencyCurve, bucket_sizes, measure_curve, warm_up


class RecordingEngine:
    """An engine that records the sizes of its batches."""

    input = TensorSpec("image", np.dtype(np.uint8), (-1, 2, 2, 1))
    output = TensorSpec("logits", np.dtype(np.float32), (-1, 3))

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        self.sizes.append(len(batch))
        return np.zeros((len(batch), 3), np.float32)


@given(st.integers(1, 1024))
def test_bucket_sizes_rise_from_one_to_the_limit(limit: int) -> None:
    sizes = bucket_sizes(limit)
    assert sizes[0] == 1
    assert sizes[-1] == limit
    assert list(sizes) == sorted(set(sizes))


def test_predictions_interpolate_and_extrapolate() -> None:
    curve = LatencyCurve((1, 4, 8), (0.1, 0.4, 0.6))
    assert [curve.predict(size) for size in (1, 2, 4, 6, 8, 16)] == pytest.approx([0.1, 0.2, 0.4, 0.5, 0.6, 1.2])


def test_limit_is_the_largest_batch_within_the_target() -> None:
    curve = LatencyCurve((1, 4, 8), (0.1, 0.4, 0.6))
    assert [curve.limit(target) for target in (0.05, 0.1, 0.5, 9.0)] == [1, 1, 4, 8]


def test_measuring_warms_up_every_size_and_keeps_the_shortest_run() -> None:
    ticks: Iterator[int] = count()
    engine = RecordingEngine()
    curve = measure_curve(engine, (1, 2), repeats=2, clock=lambda: next(ticks) / 64)
    assert engine.sizes == [1, 1, 1, 2, 2, 2]
    assert curve == LatencyCurve((1, 2), (1 / 64, 1 / 64))


def test_short_runs_are_repeated_for_a_while() -> None:
    ticks: Iterator[int] = count()
    engine = RecordingEngine()
    measure_curve(engine, (1,), repeats=2, clock=lambda: next(ticks) / 1024)
    assert engine.sizes == [1] * 12  # a warm-up, and 11 runs of 1/1024 s


def test_a_long_run_is_not_repeated() -> None:
    ticks: Iterator[int] = count()
    engine = RecordingEngine()
    measure_curve(engine, (1, 2), repeats=3, clock=lambda: float(next(ticks)))
    assert engine.sizes == [1, 1, 2, 2]


def test_warming_up_runs_every_size_once() -> None:
    engine = RecordingEngine()
    warm_up(engine, bucket_sizes(8))
    assert engine.sizes == [1, 2, 4, 8]
