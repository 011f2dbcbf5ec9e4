"""Error probability and coverage of the analysis when requests hold several images with correlated outcomes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.ab_simulations import (
    ALPHA,
    images_of_requests,
    requests_of_images,
    shares_of_images,
    single_requests,
    watch,
)
from serve.experiments.stats.bernoulli import proportion
from serve.experiments.stats.clusters import alike_samples, difference, effective_samples
from serve.experiments.stats.mixture import interval, p_value

RUNS = 200
SIXTEEN, ANY_NUMBER, RARELY_SIXTEEN = [16], list(range(1, 17)), [1] * 9 + [16]

patterns = st.lists(st.tuples(st.integers(1, 16), st.floats(0, 1), st.integers(1, 500)), min_size=1, max_size=20)


@pytest.mark.parametrize("images", [SIXTEEN, ANY_NUMBER, RARELY_SIXTEEN])
@pytest.mark.parametrize("correlation", [0.3, 1.0])
@pytest.mark.parametrize(("accuracy", "share"), [(0.85, 0.5), (0.98, 0.05)])
def test_equal_arms_are_rarely_found_different(
    images: list[int], correlation: float, accuracy: float, share: float
) -> None:
    rng = np.random.default_rng(1)
    looks = requests_of_images(rng, (accuracy, accuracy), images, correlation, share, looks=12, runs=RUNS)
    outcome = watch(looks, truth=0.0, effect=0.03)
    assert outcome.claimed <= ALPHA
    assert outcome.coverage >= 1 - ALPHA


@pytest.mark.parametrize("images", [SIXTEEN, ANY_NUMBER, RARELY_SIXTEEN])
@pytest.mark.parametrize("correlation", [0.3, 1.0])
@pytest.mark.parametrize("accuracy", [0.85, 0.98])
def test_the_interval_of_one_arm_covers_at_every_look(images: list[int], correlation: float, accuracy: float) -> None:
    covered = np.ones(RUNS, bool)
    for counts, sums, times in shares_of_images(np.random.default_rng(2), accuracy, images, correlation, 12, RUNS):
        samples = effective_samples(counts, sums, times, ALPHA)
        bounds = proportion(sums.sum(axis=-1) / counts.sum(axis=-1) * samples, samples, ALPHA)
        covered &= (bounds.low <= accuracy) & (accuracy <= bounds.high)
    assert covered.mean() >= 1 - ALPHA


@pytest.mark.parametrize("correlation", [0.3, 1.0])
def test_equal_arms_of_the_same_requests_are_rarely_found_different(correlation: float) -> None:
    """Where only one arm is right, it is either arm with equal probability, the same for all images of a request."""
    rng = np.random.default_rng(5)
    sizes, differing = images_of_requests(rng, np.full((RUNS, 1200), 0.12), ANY_NUMBER, correlation)
    towards = rng.random(sizes.shape) < 0.5
    claimed = np.zeros(RUNS, bool)
    for seen in range(100, 1201, 100):
        counts = np.repeat(sizes[:, np.newaxis, :seen, np.newaxis], 2, axis=-1)
        sums = (np.stack([differing * ~towards, differing * towards], axis=-1))[:, np.newaxis, :seen]
        estimate = difference(counts, sums, np.ones((RUNS, seen)))
        claimed |= interval(estimate, 0.03, ALPHA).excludes(0) | (p_value(estimate, 0.03) < ALPHA)
    assert claimed.mean() <= ALPHA


def test_single_images_have_the_same_power_as_a_table_of_requests() -> None:
    """Counting requests as clusters costs no precision when each request holds one image."""
    accuracies = (0.8, 0.9)
    clusters = requests_of_images(np.random.default_rng(3), accuracies, [1], 1.0, 0.5, looks=12, runs=RUNS)
    table = single_requests(np.random.default_rng(3), accuracies, 0.5, looks=12, runs=RUNS)
    ends = [[interval(estimate, 0.03, ALPHA) for _, estimate in looks][-1] for looks in (clusters, table)]
    widths = [float(np.median(bounds.high - bounds.low)) for bounds in ends]
    assert widths[0] == pytest.approx(widths[1], rel=0.03)


def test_only_uncorrelated_images_of_a_request_add_evidence() -> None:
    def width(images: list[int], correlation: float) -> float:
        *_, last = shares_of_images(np.random.default_rng(4), 0.85, images, correlation, 12, 50)
        samples = effective_samples(*last, ALPHA)
        bounds = proportion(last[1].sum(axis=-1) / last[0].sum(axis=-1) * samples, samples, ALPHA)
        return float(np.median(bounds.high - bounds.low))

    single, alike, different = width([1], 1.0), width(SIXTEEN, 1.0), width(SIXTEEN, 0.01)
    assert alike == pytest.approx(single, rel=0.25)
    assert different < 0.6 * single


@given(patterns)
def test_effective_samples_lie_between_zero_and_all_samples(pattern: list[tuple[int, float, int]]) -> None:
    counts, shares, times = np.array(pattern, float).T
    samples = float(effective_samples(counts, np.round(counts * shares), times, ALPHA))
    assert 0 <= samples <= (counts * times).sum() * (1 + 1e-9)
    assert alike_samples(counts, times) <= times.sum() * (1 + 1e-9)


@given(st.integers(0, 5000), st.integers(0, 5000))
def test_single_samples_are_all_effective(wrong: int, right: int) -> None:
    times = np.array([wrong, right], float)
    assert float(effective_samples(np.ones(2), np.array([0.0, 1.0]), times, ALPHA)) == wrong + right


@given(st.integers(2, 16), st.integers(1, 400), st.integers(1, 400))
def test_copies_of_a_sample_add_no_effective_samples(images: int, wrong: int, right: int) -> None:
    times = np.array([wrong, right], float)
    counts = np.full(2, float(images))
    assert float(effective_samples(counts, np.array([0.0, images]), times, ALPHA)) <= wrong + right + 1e-6


def test_clusters_with_equal_results_count_once_each() -> None:
    """Without this rule an arm that is never wrong would have no interval."""
    samples = effective_samples(np.array([16.0]), np.array([16.0]), np.array([200.0]), ALPHA)
    assert float(samples) == 200
    assert float(proportion(samples, samples, ALPHA).low) > 0.95
