"""Confidence of a network's distribution, from which a cascade decides whether to run the next network."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.ensembles.combine import log_softmax

Measure = Literal["margin", "entropy"]


def margin(scores: NDArray[Any]) -> NDArray[Any]:
    """Probability of the best class minus that of the second, [n], from scores [n, classes]."""
    best = np.partition(np.exp(log_softmax(scores)), -2, axis=1)
    difference: NDArray[Any] = best[:, -1] - best[:, -2]
    return difference


def entropy(scores: NDArray[Any]) -> NDArray[Any]:
    """Shannon entropy in nats, [n], from scores [n, classes]."""
    logs = log_softmax(scores)
    probabilities = np.exp(logs)
    nats: NDArray[Any] = -np.sum(probabilities * np.where(probabilities > 0, logs, 0), axis=1)  # 0 log 0 is 0
    return nats


def unsure(scores: NDArray[Any], measure: Measure, threshold: float) -> NDArray[np.bool_]:
    """Rows that need the next network, BOOL [n]: margin below the threshold, or entropy above it."""
    return margin(scores) < threshold if measure == "margin" else entropy(scores) > threshold
