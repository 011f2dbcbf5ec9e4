"""Coverage and edge cases of the confidence intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.stats.histogram import LENGTH, bins_of
from loadtest.stats.intervals import block_weights, quantile_intervals, rate_interval, ratio_interval, share_interval

TRIALS = 80


def window_counts(generator: np.random.Generator, windows: int, per_window: int) -> np.ndarray:
    """Exponential latencies of mean 10 ms."""
    counts = np.zeros((windows, LENGTH), np.int32)
    for row in counts:
        np.add.at(row, bins_of(generator.exponential(0.01, per_window)), 1)
    return counts


def test_quantile_intervals_have_about_their_nominal_coverage() -> None:
    generator = np.random.default_rng(1)
    truth = {0.5: 0.01 * math.log(2), 0.9: 0.01 * math.log(10)}
    hits = dict.fromkeys(truth, 0)
    for trial in range(TRIALS // 2):  # each takes 60 ms
        found = quantile_intervals(window_counts(generator, 30, 60), tuple(truth), seed=trial)
        for share, value in truth.items():
            hits[share] += found[share].low <= value <= found[share].high
    # A 95 % bootstrap over 30 windows falls a little short; 0.81 is four standard errors below 0.95.
    assert all(count / (TRIALS // 2) >= 0.81 for count in hits.values()), hits


def test_rate_intervals_have_about_their_nominal_coverage() -> None:
    generator = np.random.default_rng(2)
    hits = 0
    for trial in range(TRIALS):
        found = rate_interval(generator.poisson(50, 30), 0.5, seed=trial)
        assert found is not None
        hits += found.low <= 100 <= found.high
    assert hits / TRIALS >= 0.85


def test_correlated_windows_widen_the_interval() -> None:
    generator = np.random.default_rng(3)
    independent = generator.poisson(50, 64)
    correlated = np.repeat(generator.poisson(50, 16), 4)
    widths = []
    for counts in (independent, correlated):
        found = rate_interval(counts, 1.0, 1)
        assert found is not None
        widths.append((found.high - found.low) / counts.std())
    assert widths[1] > widths[0]


def test_failures_that_reach_the_quantile_make_its_upper_bound_infinite() -> None:
    counts = window_counts(np.random.default_rng(4), 10, 100)
    found = quantile_intervals(counts, (0.5, 0.99), 1, missing=np.full(10, 5))
    assert found[0.5].high < 0.02
    assert math.isinf(found[0.99].high)


def test_too_few_windows_have_no_interval() -> None:
    assert quantile_intervals(window_counts(np.random.default_rng(5), 5, 50), (0.5,), 1) == {}
    assert rate_interval(np.ones(5, np.int64), 1.0, 1) is None


@given(st.integers(2, 60), st.integers(1, 20))
def test_every_bootstrap_round_draws_as_many_windows_as_the_run_has(windows: int, seed: int) -> None:
    assert np.all(block_weights(windows, 20, seed).sum(axis=1) == windows)


def test_ratio_intervals_have_about_their_nominal_coverage() -> None:
    generator = np.random.default_rng(6)
    hits = 0
    for _ in range(400):
        drift = generator.lognormal(0, 0.5, 6)  # the state of the machine, which both sides of a round share
        first = drift * generator.lognormal(0, 0.05, 6)
        second = 1.1 * drift * generator.lognormal(0, 0.05, 6)
        _, found = ratio_interval(first.tolist(), second.tolist())
        assert found is not None
        hits += found.low <= 1.1 <= found.high
    assert 0.91 <= hits / 400 <= 0.99


def test_two_pairs_have_a_ratio_but_no_interval() -> None:
    ratio, interval = ratio_interval([1.0, 2.0], [2.0, 4.0])
    assert ratio == pytest.approx(2.0)
    assert interval is None


@given(st.integers(0, 50), st.integers(1, 50))
def test_shares_lie_within_their_interval(hits: int, more: int) -> None:
    found = share_interval(hits, hits + more)
    assert found is not None
    assert found.low <= hits / (hits + more) <= found.high
    assert share_interval(0, 0) is None
