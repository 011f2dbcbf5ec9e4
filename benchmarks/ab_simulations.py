"""Simulated experiments, many runs at a time: how often the analysis errs, and how many samples it needs.

A *look* is an interim analysis: the analysis repeats after every `LOOK_EVERY` samples. Estimates have one element per run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serve.experiments.stats.bernoulli import discordant_p_value
from serve.experiments.stats.clusters import difference
from serve.experiments.stats.mixture import Array, Estimate, interval

ALPHA = 0.05
LOOK_EVERY = 100
POWER_SIGMAS = 1.959964 + 0.841621  # two-sided 5 %, power 80 %


@dataclass(frozen=True)
class Outcome:
    """Per run: samples at which a difference was claimed (inf: never), and whether every interval covered the truth."""

    stopped: Array
    covered: NDArray[np.bool_]

    @property
    def claimed(self) -> float:
        return float(np.isfinite(self.stopped).mean())

    @property
    def coverage(self) -> float:
        return float(self.covered.mean())

    @property
    def median(self) -> float:
        return float(np.median(self.stopped))


def watch(looks: Iterator[tuple[int, Estimate]], truth: float, effect: float) -> Outcome:
    """Analyses every look, which is (samples so far, estimate of each run). `truth` is the true difference."""
    stopped: Array | None = None
    for samples, estimate in looks:
        now = interval(estimate, effect, ALPHA)
        if stopped is None:
            stopped, covered = np.full(now.low.shape, np.inf), np.ones(now.low.shape, bool)
        stopped = np.where(now.excludes(0), np.minimum(stopped, samples), stopped)
        covered &= (now.low <= truth) & (now.high >= truth)
    assert stopped is not None
    return Outcome(stopped, covered)


def single_requests(
    rng: np.random.Generator, accuracies: tuple[float, float], share: float, looks: int, runs: int
) -> Iterator[tuple[int, Estimate]]:
    """Looks at experiments in which each request is its own unit; `share` of them goes to the second arm."""
    counts = np.array([[[1, 0], [1, 0], [0, 1], [0, 1]]], float)
    sums = np.array([[[0, 0], [1, 0], [0, 0], [0, 1]]], float)
    samples, right = np.zeros((runs, 2)), np.zeros((runs, 2))
    for look in range(1, looks + 1):
        second = rng.binomial(LOOK_EVERY, share, runs)
        new = np.stack([LOOK_EVERY - second, second], axis=-1)
        samples += new
        right += rng.binomial(new, accuracies)
        times = np.stack([samples - right, right], axis=-1).reshape(runs, 4)
        yield look * LOOK_EVERY, difference(counts, sums, times)


def sticky_keys(
    rng: np.random.Generator, accuracy: float, keys: int, skew: float, correlation: float, looks: int, runs: int
) -> Iterator[tuple[int, Estimate]]:
    """Looks at experiments with sticky keys: Zipf traffic of exponent `skew`, `correlation` of the outcomes within a key."""
    popularity = 1 / np.arange(1, keys + 1) ** skew
    popularity /= popularity.sum()
    second = rng.random((runs, keys)) < 0.5
    arms = np.stack([~second, second], axis=-1)
    spread = (1 - correlation) / correlation
    own = rng.beta(accuracy * spread, (1 - accuracy) * spread, (runs, keys))
    samples, right = np.zeros((runs, keys)), np.zeros((runs, keys))
    for look in range(1, looks + 1):
        new = rng.multinomial(LOOK_EVERY, popularity, runs)
        samples += new
        right += rng.binomial(new, own)
        counts, sums = ((table[..., np.newaxis] * arms)[:, np.newaxis] for table in (samples, right))
        yield look * LOOK_EVERY, difference(counts, sums, np.ones((runs, keys)))


def images_of_requests(
    rng: np.random.Generator, accuracies: Array, images: Sequence[int], correlation: float
) -> tuple[Array, Array]:
    """Numbers of images, and of correct ones, per request; `correlation` is that of the outcomes within a request."""
    sizes = rng.choice(np.array(images), accuracies.shape)
    if correlation == 1:
        return sizes.astype(float), sizes * (rng.random(accuracies.shape) < accuracies).astype(float)
    spread = (1 - correlation) / correlation
    own = rng.beta(accuracies * spread, (1 - accuracies) * spread)
    return sizes.astype(float), rng.binomial(sizes, own).astype(float)


def requests_of_images(
    rng: np.random.Generator,
    accuracies: tuple[float, float],
    images: Sequence[int],
    correlation: float,
    share: float,
    looks: int,
    runs: int,
) -> Iterator[tuple[int, Estimate]]:
    """Looks at experiments in which each request is its own unit; its number of images is drawn from `images`."""
    second = rng.random((runs, looks * LOOK_EVERY)) < share
    sizes, right = images_of_requests(rng, np.where(second, accuracies[1], accuracies[0]), images, correlation)
    arms = np.stack([~second, second], axis=-1)
    counts, sums = ((table[..., np.newaxis] * arms)[:, np.newaxis] for table in (sizes, right))
    for seen in range(LOOK_EVERY, looks * LOOK_EVERY + 1, LOOK_EVERY):
        yield seen, difference(counts[:, :, :seen], sums[:, :, :seen], np.ones((runs, seen)))


def shares_of_images(
    rng: np.random.Generator, accuracy: float, images: Sequence[int], correlation: float, looks: int, runs: int
) -> Iterator[tuple[Array, Array, Array]]:
    """The clusters of one arm at every look: counts, sums and times, each [runs, clusters]."""
    sizes, right = images_of_requests(rng, np.full((runs, looks * LOOK_EVERY), accuracy), images, correlation)
    for seen in range(LOOK_EVERY, looks * LOOK_EVERY + 1, LOOK_EVERY):
        yield sizes[:, :seen], right[:, :seen], np.ones((runs, seen))


def pairs(
    rng: np.random.Generator, only_first: float, only_second: float, looks: int, runs: int
) -> Iterator[tuple[Array, Array]]:
    """Discordant pairs so far at every look: images that only the first arm, or only the second, classified correctly."""
    counts = np.zeros((runs, 2))
    for _ in range(looks):
        counts += rng.multinomial(LOOK_EVERY, [only_first, only_second, 1 - only_first - only_second], runs)[:, :2]
        yield counts[:, 0].copy(), counts[:, 1].copy()


def paired_stops(looks: Iterator[tuple[Array, Array]]) -> Array:
    """Number of images at which the test on discordant pairs claimed a difference, per run (inf: never)."""
    stopped: Array = np.array(np.inf)
    for look, (first, second) in enumerate(looks, 1):
        stopped = np.where(discordant_p_value(first, second) < ALPHA, np.minimum(stopped, look * LOOK_EVERY), stopped)
    return stopped


def paired_differences(looks: Iterator[tuple[Array, Array]]) -> Iterator[tuple[int, Estimate]]:
    """The same pairs as estimates of the difference of accuracies."""
    counts = np.ones((1, 3, 2))
    sums = np.array([[[1, 0], [0, 1], [0, 0]]], float)
    for look, (first, second) in enumerate(looks, 1):
        images = look * LOOK_EVERY
        yield images, difference(counts, sums, np.stack([first, second, images - first - second], axis=-1))


def fixed_sample_size(accuracies: tuple[float, float]) -> float:
    """Samples that a fixed-sample test needs in both arms together, at a level of 5 % and a power of 80 %."""
    variance = sum(p * (1 - p) for p in accuracies)
    return float(2 * variance * (POWER_SIGMAS / (accuracies[1] - accuracies[0])) ** 2)
