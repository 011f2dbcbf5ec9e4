"""Temperature scaling: one number per network that makes its probabilities honest (Guo et al. 2017)."""

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
    """A fitted temperature, and the expected calibration error (0..1) without and with it on the images it was fitted on."""

    temperature: float
    ece_before: float
    ece_after: float
    images: int


def negative_log_likelihood(logits: NDArray[Any], labels: Labels) -> float:
    """Mean over images, in nats, of logits [n, classes] and class indices [n]."""
    return float(-log_softmax(logits)[np.arange(len(labels)), labels].mean())


def expected_calibration_error(logits: NDArray[Any], labels: Labels, bins: int = BINS) -> float:
    """The mean distance of confidence from accuracy over `bins` equal bins of confidence, weighted by their images."""
    probabilities = np.exp(log_softmax(logits.astype(np.float64)))
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    bin_of = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    apart = np.bincount(bin_of, right - confidence, minlength=bins)
    return float(np.abs(apart).sum() / len(labels))


def fit_temperature(logits: NDArray[np.float32], labels: Labels) -> float:
    """The temperature, within 0.05 and 20, with the least negative log-likelihood.

    In 1/T that is convex, so in log T it has one lowest point.
    """

    def loss(logarithm: float) -> float:
        return negative_log_likelihood(logits / np.exp(logarithm), labels)

    found = minimize_scalar(loss, bounds=np.log((COLDEST, HOTTEST)), method="bounded")
    return float(np.exp(found.x))


def calibrate(logits: NDArray[np.float32], labels: Labels) -> Calibration:
    """Fits a temperature on held-out labels. Raises ValueError when there are none."""
    if len(labels) == 0:
        raise ValueError("a temperature needs held-out images with labels")
    temperature = fit_temperature(logits, labels)
    before, after = (expected_calibration_error(logits / t, labels) for t in (1.0, temperature))
    return Calibration(temperature, before, after, len(labels))
