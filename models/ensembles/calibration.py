"""Temperature scaling: one parameter per network that calibrates its probabilities (Guo et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from models.ensembles.combine import log_softmax

BINS = 15  # as in the paper
COLDEST, HOTTEST = 0.05, 20.0

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Calibration:
    """A fitted temperature, and the expected calibration error (0..1) before and after, on the same images."""

    temperature: float
    ece_before: float
    ece_after: float
    images: int


def negative_log_likelihood(logits: NDArray[Any], labels: Labels) -> float:
    """Mean negative log-likelihood in nats, of logits [n, classes] and class indices [n]."""
    return float(-log_softmax(logits)[np.arange(len(labels)), labels].mean())


def expected_calibration_error(logits: NDArray[Any], labels: Labels, bins: int = BINS) -> float:
    """Mean of |accuracy - confidence| over `bins` equal bins of confidence, weighted by images per bin; 0..1."""
    probabilities = np.exp(log_softmax(logits.astype(np.float64)))
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    bin_of = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(bin_of, correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def fit_temperature(logits: NDArray[np.float32], labels: Labels) -> float:
    """The temperature in [0.05, 20] with the least negative log-likelihood.

    The likelihood is convex in 1/T, so it has a single minimum over log T as well.
    """

    def loss(logarithm: float) -> float:
        return negative_log_likelihood(logits / np.exp(logarithm), labels)

    found = minimize_scalar(loss, bounds=np.log((COLDEST, HOTTEST)), method="bounded")
    return float(np.exp(found.x))


def calibrate(logits: NDArray[np.float32], labels: Labels) -> Calibration:
    """Fits a temperature on a validation set. Raises ValueError when it is empty."""
    if len(labels) == 0:
        raise ValueError("a temperature needs labelled images of a validation set")
    temperature = fit_temperature(logits, labels)
    before, after = (expected_calibration_error(logits / t, labels) for t in (1.0, temperature))
    return Calibration(temperature, before, after, len(labels))
