"""Predicted run times and paces, learned from measurements."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.batching.latency_curve import LatencyCurve
from serve.batching.pace import Pace, RunTimes

CURVE = LatencyCurve((1, 2, 4, 8, 16, 32), (0.0002, 0.0003, 0.0005, 0.0009, 0.0016, 0.003))
SIZES = st.sampled_from(CURVE.sizes)


def learned(runs: list[tuple[int, float]]) -> RunTimes:
    times = RunTimes(CURVE)
    for size, seconds in runs:
        times.learn(size, seconds)
    return times


def test_without_runs_predictions_equal_the_curve() -> None:
    times = RunTimes(CURVE)
    assert [times.predict(size) for size in (1, 32)] == [0.0002, 0.003]


@given(st.lists(SIZES, min_size=20, max_size=40), st.floats(0.5, 4), st.floats(0, 0.01))
def test_a_factor_and_a_fixed_time_are_told_apart_if_sizes_differ(
    sizes: list[int], factor: float, fixed: float
) -> None:
    runs = [*sizes * 4, *CURVE.sizes * 20]
    times = learned([(size, fixed + factor * CURVE.predict(size)) for size in runs])
    for size in CURVE.sizes:
        assert times.predict(size) == pytest.approx(fixed + factor * CURVE.predict(size), rel=0.25, abs=0.0002)


@given(SIZES, st.floats(0, 0.01))
def test_a_delay_of_small_runs_is_not_scaled_to_large_ones(size: int, delay: float) -> None:
    times = learned([(size, delay + CURVE.predict(size))] * 200)
    assert times.predict(size) == pytest.approx(delay + CURVE.predict(size), rel=0.01)
    assert times.predict(32) <= delay + CURVE.predict(32) + 1e-6


@given(st.lists(st.tuples(SIZES, st.floats(0, 100)), max_size=100))
def test_after_any_runs_predictions_are_positive_and_grow_with_the_size(runs: list[tuple[int, float]]) -> None:
    times = learned(runs)
    predictions = [times.predict(size) for size in range(1, 40)]
    assert predictions[0] > 0
    assert predictions == sorted(predictions)


def test_an_outlier_changes_the_estimate_little() -> None:
    times = learned([(8, 0.0009)] * 50)
    times.learn(8, 60.0)
    assert times.predict(8) < 0.0009 * 2


@given(st.floats(0.0001, 0.02), st.integers(1, 32))
def test_the_largest_run_for_a_time_takes_no_longer(seconds: float, most: int) -> None:
    times = RunTimes(CURVE)
    size = times.largest(seconds, most)
    assert size == 1 or (size <= most and times.predict(size) <= seconds)


@given(st.lists(st.tuples(st.floats(1, 1e7), st.floats(0.5, 2)), min_size=20, max_size=20), st.floats(1e-9, 1e-7))
def test_the_pace_is_learned_from_pieces_of_any_size(pieces: list[tuple[float, float]], true: float) -> None:
    """With noise of a factor of two and a prior that is ten times too high or too low."""
    for prior in (true / 10, true * 10):
        pace = Pace(prior)
        for units, noise in pieces * 10:
            pace.learn(units, units * true * noise)
        assert 0.4 * true * 1e6 <= pace.predict(1e6) <= 2.5 * true * 1e6
