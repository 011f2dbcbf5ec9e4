"""Confidence sequences and always-valid p-values from an estimate and its variance: the normal mixture.

With estimate e, variance v and mixing variance t = effect², the mixture likelihood ratio against a value x is

    L(x) = sqrt(v / (v + t)) · exp(t (e - x)² / (2 v (v + t)))

Under x it is a nonnegative martingale in the limit of many samples, so by Ville's inequality it ever exceeds 1/α with a
probability of at most α. {x: L(x) < 1/α} is a confidence sequence, 1/L(0) an always-valid p-value.

Robbins 1970 (the mixture); Johari, Koomen, Pekelis, Walsh 2022 (mixture SPRT for A/B tests); Howard, Ramdas, McAuliffe,
Sekhon 2021 (boundaries); Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas 2024 (validity with an estimated variance).

An estimated variance of few clusters is too small too often: a tail of the normal is therefore carried over to the same
tail of Student's t with the `freedom` of the variance. Outcomes that are positively correlated within a cluster which keeps
growing make a process whose covariance is at least that of the martingale; it crosses less often (Slepian 1962).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri, stdtr, stdtrit

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A point estimate, the variance of that estimate and the degrees of freedom of the variance; arrays of one shape."""

    value: Array
    variance: Array
    freedom: Array


@dataclass(frozen=True)
class Interval:
    """Bounds of a confidence sequence at one time."""

    low: Array
    high: Array

    def excludes(self, value: float) -> NDArray[np.bool_]:
        """Whether `value` is outside the bounds."""
        return (self.low > value) | (self.high < value)


def radius(variance: Array, freedom: Array, effect: float, alpha: float) -> Array:
    """Half the width of the confidence sequence; infinite where the variance is not known."""
    mixing = effect**2
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        total = variance + mixing
        sigmas = np.sqrt(2 * total / mixing * (np.log(1 / alpha) + 0.5 * np.log(total / variance)))
        widened = np.where(
            freedom > 0, np.abs(stdtrit(freedom, ndtr(-sigmas))), np.inf
        )  # inf without an estimated variance
        return np.where(variance > 0, widened * np.sqrt(variance), np.inf)


def interval(estimate: Estimate, effect: float, alpha: float) -> Interval:
    """The confidence sequence, narrowest about a true difference of `effect`."""
    width = radius(estimate.variance, estimate.freedom, effect, alpha)
    known = np.isfinite(estimate.value)
    return Interval(np.where(known, estimate.value - width, -np.inf), np.where(known, estimate.value + width, np.inf))


def p_value(estimate: Estimate, effect: float) -> Array:
    """Always-valid p-value against 0 at one time; the minimum over all times so far is valid too."""
    mixing, variance = effect**2, estimate.variance
    with np.errstate(invalid="ignore", divide="ignore"):
        tail = stdtr(estimate.freedom, -np.abs(estimate.value) / np.sqrt(variance))
        sigmas = ndtri(tail)
        total = variance + mixing
        inverse = np.sqrt(total / variance) * np.exp(-(sigmas**2) * mixing / (2 * total))
    return np.where((variance > 0) & (estimate.freedom > 0), np.minimum(1.0, inverse), 1.0)


def growth_to_reach(estimate: Estimate, effect: float, alpha: float, target: float) -> float:
    """The factor by which samples must grow until the radius is `target`; 1 when it already is, infinite when unknown."""
    variance, freedom = float(estimate.variance), float(estimate.freedom)
    if not variance > 0 or not freedom > 0:
        return float("inf")

    def excess(log_growth: float) -> float:
        growth = np.exp(log_growth)
        return float(radius(np.array(variance / growth), np.array(freedom * growth), effect, alpha)) - target

    if excess(0.0) <= 0:
        return 1.0
    most = np.log(1e12)
    return float("inf") if excess(most) > 0 else float(np.exp(brentq(excess, 0.0, most)))
