"""Weights of an ensemble's members, fitted on held-out labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.ensembles.combine import log_softmax

ROUNDS = 500
SETTLED = 1e-6  # weights that move less in a round are final
LEAST = 1e-3  # below it a member is not worth its engine time: its weight is none


def fit_weights(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """The weights [members], adding up to 1, with which the mean probability of the true class has the best likelihood.

    That likelihood is concave in the weights, and expectation-maximisation for a mixture's weights rises to its top without
    a step size (Dempster, Laird and Rubin 1977): a member's new weight is the mean share it had in what was said of the truth.

    Args:
        logits: [members, n, classes].
        labels: class indices [n].
    """
    says = np.exp(log_softmax(logits.astype(np.float64))[:, np.arange(len(labels)), labels])
    says = np.maximum(says, np.finfo(np.float64).tiny)
    weights = np.full(len(logits), 1 / len(logits))
    for _ in range(ROUNDS):
        shares = weights[:, np.newaxis] * says
        before, weights = weights, (shares / shares.sum(axis=0)).mean(axis=1)
        if np.abs(weights - before).max() < SETTLED:
            break
    weights = np.where(weights < LEAST, 0.0, weights)
    return np.asarray(weights / weights.sum())
