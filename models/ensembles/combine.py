"""Combines the logits of several members (networks, or views of one network) to one score per class."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Rule = Literal["mean_logit", "mean_probability", "geometric_mean", "vote"]
Scores = NDArray[np.float32]

TIE_BREAK = 1e-3  # weight of the mean probability added to the votes: so small that it only breaks ties


def log_softmax(logits: NDArray[Any]) -> NDArray[Any]:
    """Log probabilities over the last axis."""
    shifted: NDArray[Any] = logits - logits.max(axis=-1, keepdims=True)
    logs: NDArray[Any] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return logs


def combine(logits: Scores, weights: NDArray[Any], rule: Rule) -> Scores:
    """The combined scores [n, classes] of `logits` [members, n, classes]; their softmax is the combined distribution.

    Args:
        logits: FP32 [members, n, classes].
        weights: [members], above 0; only their proportions matter.
        rule: `mean_probability` is the arithmetic mean of the distributions, `geometric_mean` the normalised geometric mean,
            `mean_logit` the same except for a constant per row, `vote` adds each member's weight to its best class.

    The logits of a single member are returned unchanged, except with `vote`.
    """
    shares = (weights / weights.sum()).astype(np.float32)[:, np.newaxis, np.newaxis]
    if len(logits) == 1 and rule != "vote":
        scores = logits[0]
    elif rule == "mean_logit":
        scores = np.sum(shares * logits, axis=0)
    elif rule == "geometric_mean":
        scores = log_softmax(np.sum(shares * log_softmax(logits), axis=0))
    else:
        mean = np.sum(shares * np.exp(log_softmax(logits)), axis=0)
        mean = mean if rule == "mean_probability" else _votes(logits, shares) + TIE_BREAK * mean
        scores = np.log(np.maximum(mean / mean.sum(axis=1, keepdims=True), np.finfo(np.float32).tiny))
    combined: Scores = scores.astype(np.float32, copy=False)
    return combined


def _votes(logits: Scores, shares: NDArray[Any]) -> NDArray[Any]:
    """The share of votes per class, [n, classes]."""
    votes = np.zeros(logits.shape[1:], np.float32)
    np.add.at(votes, (np.arange(len(votes)), logits.argmax(axis=2)), shares[..., 0])
    return votes
