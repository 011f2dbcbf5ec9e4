"""Means and differences of clustered samples: variance, strata, pairs and degrees of freedom."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.experiments.stats.clusters import difference, mean, of_moments

SINGLES = np.array([[[1, 0], [1, 0], [0, 1], [0, 1]]], float)
RIGHT = np.array([[[0, 0], [1, 0], [0, 0], [0, 1]]], float)
cells = st.lists(st.integers(2, 5000), min_size=4, max_size=4)


@given(cells)
def test_single_requests_have_the_textbook_variance(times: list[int]) -> None:
    wrong0, right0, wrong1, right1 = times
    estimate = difference(SINGLES, RIGHT, np.array(times, float))
    n = np.array([wrong0 + right0, wrong1 + right1])
    p = np.array([right0, right1]) / n
    assert float(estimate.value) == pytest.approx(p[1] - p[0])
    textbook = (p * (1 - p) / (n - 1)).sum()
    # Never less than the textbook's; more where an arm has few samples of an outcome.
    assert float(estimate.variance) >= textbook * (1 - 1e-9)
    assert float(estimate.variance) <= 4 * textbook + 2 / n.min()


def test_repeat_counts_are_equivalent_to_repeated_rows() -> None:
    times = np.array([30.0, 70, 20, 80])
    folded = difference(SINGLES, RIGHT, times)
    repeat = times.astype(int)
    expanded = difference(np.repeat(SINGLES, repeat, axis=1), np.repeat(RIGHT, repeat, axis=1), np.ones(200))
    for value, expected in zip((folded.value, folded.variance, folded.freedom), vars(expanded).values(), strict=True):
        assert float(value) == pytest.approx(float(expected))


def test_strata_remove_drift_from_the_difference() -> None:
    """Both arms fall from 90 % to 60 %, while the second arm's share grows from 10 % to 90 %: there is no difference."""
    counts = np.zeros((2, 8, 2))
    sums = np.zeros((2, 8, 2))
    for stratum in range(2):
        counts[stratum, stratum * 4 : stratum * 4 + 4] = SINGLES[0]
        sums[stratum, stratum * 4 : stratum * 4 + 4] = RIGHT[0]
    times = np.array([90, 810, 10, 90, 40, 60, 360, 540], float)
    assert float(difference(counts, sums, times).value) == pytest.approx(0.0)
    pooled = difference(counts.sum(0, keepdims=True), sums.sum(0, keepdims=True), times)
    assert abs(float(pooled.value)) > 0.2


def test_pairs_use_the_correlation_of_arms_on_the_same_image() -> None:
    both = np.ones((1, 4, 2))
    right = np.array([[[1, 1], [1, 0], [0, 1], [0, 0]]], float)
    times = np.array([850.0, 20, 50, 80])
    paired = difference(both, right, times)
    n, d = 1000, 0.03
    assert float(paired.value) == pytest.approx(d)
    assert float(paired.variance) == pytest.approx((70 / n - d**2) / n, rel=0.01)


def test_the_difference_is_unknown_when_an_arm_has_no_samples() -> None:
    estimate = difference(SINGLES, RIGHT, np.array([10.0, 20, 0, 0]))
    assert np.isnan(estimate.value)
    assert estimate.freedom == 0


def test_a_key_with_nearly_all_traffic_cannot_hide_its_deviation() -> None:
    heavy = mean(np.array([1000.0, 10, 10, 10]), np.array([500.0, 9, 9, 9]), np.ones(4))
    assert float(heavy.variance) > 0.3**2


@given(st.lists(st.floats(-5, 5), min_size=10, max_size=40).filter(lambda values: np.std(values) > 1e-3))
def test_moments_give_mean_and_variance(values: list[float]) -> None:
    samples = np.array(values)
    many = np.array(float(len(values)))
    folded = mean(*of_moments(many, many, samples.sum(), many, samples.sum(), (samples**2).sum()))
    assert float(folded.value) == pytest.approx(samples.mean(), abs=1e-9)
    assert float(folded.variance) == pytest.approx(samples.var() / len(values), rel=6 / len(values))
