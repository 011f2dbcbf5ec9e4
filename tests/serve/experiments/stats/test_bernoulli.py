"""Confidence sequences of proportions and quantiles, and the test of discordant pairs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.experiments.stats.bernoulli import discordant_p_value, log_martingale, proportion, quantile
from serve.experiments.stats.mixture import Array

ALPHA = 0.05


@given(st.integers(0, 500), st.integers(1, 500), st.floats(0.01, 0.99))
def test_the_martingale_keeps_its_expected_value(successes: int, more: int, p: float) -> None:
    """Its expected value after the next sample equals its present value."""
    s, n = np.array([float(successes)]), np.array([float(successes + more)])
    success = np.log(p) + log_martingale(s + 1, n + 1, p)
    failure = np.log(1 - p) + log_martingale(s, n + 1, p)
    assert np.logaddexp(success, failure) == pytest.approx(log_martingale(s, n, p), abs=1e-6)


@pytest.mark.parametrize("p", [0.001, 0.1, 0.5])
def test_intervals_cover_at_every_look(p: float) -> None:
    rng = np.random.default_rng(1)
    successes, covered = np.zeros(2000), np.ones(2000, bool)
    for look in range(1, 101):
        successes += rng.binomial(20, p, 2000)
        interval = proportion(successes, np.full(2000, 20.0 * look), ALPHA)
        covered &= (interval.low <= p) & (p <= interval.high)
    assert covered.mean() >= 1 - ALPHA


def test_the_interval_without_samples_is_0_to_1() -> None:
    nothing = proportion(np.array(0.0), np.array(0.0), ALPHA)
    assert (float(nothing.low), float(nothing.high)) == (0.0, 1.0)


def test_the_p_value_of_discordant_pairs_is_small_only_for_uneven_counts() -> None:
    assert discordant_p_value(np.array(5.0), np.array(5.0)) == 1.0
    assert discordant_p_value(np.array(5.0), np.array(30.0)) < 0.001


def of_counts(edges: Array, counts: Array, level: float) -> tuple[float, float]:
    below = np.concatenate([[0.0], np.cumsum(counts)])
    return quantile(edges, below / counts.sum(), np.full(len(edges), counts.sum()), level, ALPHA)


@pytest.mark.parametrize("level", [0.5, 0.99])
def test_quantiles_cover_at_every_look(level: float) -> None:
    rng = np.random.default_rng(2)
    edges = np.concatenate([[0.0], np.geomspace(0.001, 100, 400), [np.inf]])
    truth = float(-np.log(1 - level))  # of the exponential distribution
    missed = 0
    for _ in range(400):
        counts = np.zeros(len(edges) - 1)
        for _look in range(20):
            samples = rng.exponential(size=100)
            counts += np.bincount(np.searchsorted(edges, samples) - 1, minlength=len(counts))
            low, high = of_counts(edges, counts, level)
            if not low <= truth <= high:
                missed += 1
                break
    assert missed / 400 <= ALPHA


def test_few_samples_cannot_bound_a_high_quantile_from_above() -> None:
    edges = np.array([0.0, 1.0, 2.0, np.inf])
    assert of_counts(edges, np.array([10.0, 10, 0]), 0.99)[1] == np.inf
