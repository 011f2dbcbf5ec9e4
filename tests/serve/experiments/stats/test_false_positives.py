"""Error probability and coverage of the analysis, by simulation: 2 000 experiments, analysed after every 100 samples."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.ab_simulations import (
    ALPHA,
    fixed_sample_size,
    paired_differences,
    paired_stops,
    pairs,
    single_requests,
    sticky_keys,
    watch,
)

RUNS = 2000


@pytest.mark.parametrize("share", [0.5, 0.05, 0.01])
@pytest.mark.parametrize("accuracy", [0.55, 0.9, 0.98])
def test_equal_arms_are_rarely_found_different(accuracy: float, share: float) -> None:
    looks = single_requests(np.random.default_rng(1), (accuracy, accuracy), share, looks=60, runs=RUNS)
    outcome = watch(looks, truth=0.0, effect=0.03)
    assert outcome.claimed <= ALPHA
    assert outcome.coverage >= 1 - ALPHA


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keys", "skew", "correlation"),
    [(1000, 0.5, 0.1), (200, 1.0, 0.3), (50, 1.2, 0.5), (30, 2.0, 0.5), (10, 1.5, 0.5)],
)
def test_equal_arms_with_skewed_keys_are_rarely_found_different(keys: int, skew: float, correlation: float) -> None:
    looks = sticky_keys(np.random.default_rng(2), 0.85, keys, skew, correlation, looks=50, runs=RUNS)
    outcome = watch(looks, truth=0.0, effect=0.03)
    assert outcome.claimed <= ALPHA
    assert outcome.coverage >= 1 - ALPHA


def test_an_analysis_without_clusters_would_exceed_alpha() -> None:
    """Why clusters are needed: the same data, analysed as if every request were independent."""
    rng = np.random.default_rng(3)
    last = list(sticky_keys(rng, 0.85, 50, 1.0, 0.3, looks=20, runs=300))[-1][1]
    naive_variance = 4 * 0.85 * 0.15 / 2000
    assert (np.abs(last.value) > 4 * np.sqrt(naive_variance)).mean() > ALPHA


def test_a_difference_of_the_configured_effect_is_found_with_few_samples() -> None:
    accuracies = (0.88, 0.91)
    outcome = watch(single_requests(np.random.default_rng(4), accuracies, 0.5, looks=160, runs=500), 0.03, effect=0.03)
    assert outcome.median <= 1.5 * fixed_sample_size(accuracies)
    assert outcome.coverage >= 1 - ALPHA


def test_equal_pairs_are_rarely_found_different() -> None:
    stops = paired_stops(pairs(np.random.default_rng(5), 0.06, 0.06, looks=60, runs=RUNS))
    assert np.isfinite(stops).mean() <= ALPHA


def test_intervals_of_pairs_cover_the_difference() -> None:
    outcome = watch(paired_differences(pairs(np.random.default_rng(6), 0.03, 0.06, 60, RUNS)), 0.03, effect=0.03)
    assert outcome.coverage >= 1 - ALPHA


def test_pairs_need_several_times_fewer_images_than_separate_requests() -> None:
    rng = np.random.default_rng(7)
    stops = paired_stops(pairs(rng, 0.02, 0.05, looks=160, runs=500))
    separate = watch(single_requests(rng, (0.88, 0.91), 0.5, looks=160, runs=500), 0.03, effect=0.03)
    assert np.median(stops) * 3 <= separate.median
