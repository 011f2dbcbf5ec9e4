"""When a cascade asks the next network: by how sure the distribution of the present one is."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.ensembles.combine import log_softmax

Measure = Literal["margin", "entropy"]


def margin(scores: NDArray[Any]) -> NDArray[Any]:
    """Probability of the best class less that of the second, [n], of scores [n, classes]."""
    best = np.partition(np.exp(log_softmax(scores)), -2, axis=1)
    apart: NDArray[Any] = best[:, -1] - best[:, -2]
    return apart


def entropy(scores: NDArray[Any]) -> NDArray[Any]:
    """Shannon entropy in nats, [n], of scores [n, classes]."""
    logs = log_softmax(scores)
    shares = np.exp(logs)
    nats: NDArray[Any] = -np.sum(shares * np.where(shares > 0, logs, 0), axis=1)  # a class ruled out adds nothing
    return nats


def unsure(scores: NDArray[Any], measure: Measure, threshold: float) -> NDArray[np.bool_]:
    """Which rows the next network must see: margin below the threshold, or entropy above it."""
    return margin(scores) < threshold if measure == "margin" else entropy(scores) > threshold
