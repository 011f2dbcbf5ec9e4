"""Weights of an ensemble's members, fitted on a validation set."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.ensembles.combine import log_softmax

ROUNDS = 500
SETTLED = 1e-6  # converged when no weight changes by more in an iteration
LEAST = 1e-3  # smaller weights are set to 0: such a member is not worth its engine time


def fit_weights(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Maximum-likelihood weights [members], summing to 1, of the mean probability of the true class.

    The likelihood is concave in the weights. Expectation-maximisation for mixture weights climbs it without a step size
    (Dempster, Laird and Rubin 1977): a member's new weight is its mean share in the true class's probability.

    Args:
        logits: [members, n, classes].
        labels: class indices [n].
    """
    likelihoods = np.exp(log_softmax(logits.astype(np.float64))[:, np.arange(len(labels)), labels])
    likelihoods = np.maximum(likelihoods, np.finfo(np.float64).tiny)
    weights = np.full(len(logits), 1 / len(logits))
    for _ in range(ROUNDS):
        shares = weights[:, np.newaxis] * likelihoods
        before, weights = weights, (shares / shares.sum(axis=0)).mean(axis=1)
        if np.abs(weights - before).max() < SETTLED:
            break
    weights = np.where(weights < LEAST, 0.0, weights)
    return np.asarray(weights / weights.sum())
