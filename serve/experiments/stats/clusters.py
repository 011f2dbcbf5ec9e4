"""Differences and means with robust variances: clusters are the units of assignment, strata the stages of a ramp.

A cluster holds all samples of one unit: many requests of one sticky key, a single request, or in a paired
experiment an image that all arms classified. Strata are combined with Mantel and Haenszel's weights, so that a ramp during which
accuracy drifts does not turn the drift into a difference of arms. The variance is that of the clusters' influences on the
estimate, over all strata and arms in which a cluster appears, each as seen when the cluster itself is left out (the
jackknife, CR3: Bell and McCaffrey 2002), or a key that sends most of an arm's traffic would hide its own deviation.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

from serve.experiments.stats.mixture import Array, Estimate

SIGNS = np.array([-1.0, 1.0])


def difference(counts: Array, sums: Array, times: Array) -> Estimate:
    """Mean of the second arm minus mean of the first.

    `counts` and `sums` [..., strata, clusters, 2] hold samples and their sum; `times` [..., clusters] is the number of
    equal clusters, so that a million single requests fit in a few rows.
    """
    many = times[..., np.newaxis, :, np.newaxis]
    totals = (counts * many).sum(axis=-2, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = (sums * many).sum(axis=-2, keepdims=True) / totals
        weights = (totals > 0).all(axis=-1, keepdims=True) / (1 / totals).sum(axis=-1, keepdims=True)
        weights = weights / weights.sum(axis=-3, keepdims=True)
        scale = np.nan_to_num(weights / totals, posinf=0.0)
        residuals = np.nan_to_num(sums - means * counts) * (scale > 0)
        contrast = np.nan_to_num(weights[..., 0, 0] * (means[..., 0, 1] - means[..., 0, 0]))
        influence = residuals * SIGNS * weights / (totals - counts)
        influence = np.where((counts > 0) & (scale > 0), np.where(totals > counts, influence, np.inf), 0.0)
    seen = ((counts > 0) & (scale > 0)).any(axis=(-3, -1))
    doubt = (_unseen_variance(counts > 0, residuals, many) * scale[..., 0, :] ** 2).sum(axis=(-2, -1))
    known = (scale > 0).any(axis=(-3, -2, -1))
    return _estimate(np.where(known, contrast.sum(axis=-1), np.nan), influence.sum(axis=(-3, -1)), times * seen, doubt)


def _unseen_variance(seen: NDArray[np.bool_], residuals: Array, many: Array) -> Array:
    """Squared residuals [..., strata, 2] that an arm lacks compared with the average of both arms' clusters.

    A canary's first samples are often all correct, and then have no variance. Clusters with samples of both arms do
    not count: their samples are compared with each other.
    """
    alone = many * (seen & ~seen.all(axis=-1, keepdims=True))
    squares, clusters = (alone * residuals**2).sum(axis=-2), alone.sum(axis=-2)
    typical = squares.sum(axis=-1, keepdims=True) / np.maximum(clusters.sum(axis=-1, keepdims=True), 1)
    return np.asarray(np.maximum(0.0, typical * clusters - squares))


def mean(counts: Array, sums: Array, times: Array) -> Estimate:
    """Mean of one arm. `counts`, `sums` and `times` are [..., clusters].

    Clusters of unequal size have fewer degrees of freedom: the large ones dominate the variance.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        total = (counts * times).sum(axis=-1, keepdims=True)
        value = (sums * times).sum(axis=-1, keepdims=True) / total
        scores = np.where(total > counts, (sums - value * counts) / (total - counts), np.inf)
    estimate = _estimate(value[..., 0], scores, times * (counts > 0), np.zeros_like(value[..., 0]))
    freedom = np.clip(alike_samples(counts, times) - 1, 0.0, estimate.freedom)
    return Estimate(estimate.value, estimate.variance, freedom)


def alike_samples(counts: Array, times: Array) -> Array:
    """Effective sample size if all samples of a cluster were equal (Kish 1965); at most the number of clusters."""
    with np.errstate(invalid="ignore", divide="ignore"):
        size = (counts * times).sum(axis=-1)
        return np.asarray(np.nan_to_num(size**2 / (counts**2 * times).sum(axis=-1)), np.float64)


def effective_samples(counts: Array, sums: Array, times: Array, alpha: float) -> Array:
    """Effective sample size of the share sums / counts of yes/no outcomes (Korn and Graubard 1998).

    The number of samples when every cluster has one. Otherwise the smaller of two sizes: that of the share's variance,
    widened for few clusters, and that of the correlation within clusters, since large clusters that happen to agree show
    no variance. `alpha`: level of the confidence sequence, at whose tail normal and Student's t are compared.
    """
    size = (counts * times).sum(axis=-1)
    estimate = mean(counts, sums, times)
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = estimate.value * (1 - estimate.value)  # of one sample
        sigmas = np.sqrt(2 * np.log(1 / alpha) + np.log(np.maximum(size, 1) * np.pi / 2))
        widened = stdtrit(estimate.freedom, ndtr(-sigmas)) / sigmas
        shown = np.where(variance > 0, np.nan_to_num(variance / (estimate.variance * widened**2)), size)
        differing = (sums * (counts - sums) * times).sum(axis=-1) / (counts * (counts - 1) * times).sum(axis=-1)
        alike = np.clip(np.where(variance > 0, 1 - differing / variance, 1.0), 0.0, 1.0)  # Fleiss and Cuzick 1979
        left = size / (1 + alike * (size / alike_samples(counts, times) - 1))
    single = ((counts <= 1) | (times == 0)).all(axis=-1)
    return np.asarray(np.where(single, size, np.minimum(shown, left)), np.float64)


def of_moments(
    units: Array, count: Array, total: Array, count_squares: Array, products: Array, squares: Array
) -> tuple[Array, Array, Array]:
    """Counts, sums and times [..., 2] of clusters of which only the sums of n, x, n², n·x and x² are known.

    Half of the clusters at one standard deviation of x - mean·n below the mean and half above it have the same variance.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        middle, size = total / count, count / units
        spread = np.sqrt(np.maximum(0.0, squares - 2 * middle * products + middle**2 * count_squares) / units)
    sums = np.nan_to_num(np.stack([middle * size - spread, middle * size + spread], axis=-1))
    return np.nan_to_num(np.stack([size, size], axis=-1)), sums, np.stack([units, units], axis=-1) / 2


def _estimate(value: Array, scores: Array, times: Array, doubt: Array) -> Estimate:
    """Variance with the small-sample correction, and Satterthwaite's degrees of freedom.

    `doubt`: variance that is added to that of the scores.
    """
    clusters = times.sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        squares = (times * scores**2).sum(axis=-1)
        fourth = (times * scores**4).sum(axis=-1)
        variance = (squares + doubt) * clusters / (clusters - 1)
        freedom = 2 * squares**2 / fourth
    known = (clusters > 1) & (squares > 0) & np.isfinite(squares)
    return Estimate(value, np.where(known, variance, np.nan), np.where(known, freedom, 0.0))
