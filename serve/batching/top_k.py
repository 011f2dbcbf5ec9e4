"""The best classes of logits, and their probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TOP = 5


@dataclass(frozen=True)
class Ranking:
    """Per row the best class indices, best first, and their softmax probabilities."""

    classes: list[list[int]]
    probabilities: list[list[float]]


def rank(logits: NDArray[np.float32], top: int) -> Ranking:
    """The `top` best classes of logits [n, classes]; all of them when there are fewer. Equal logits: lower index first."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = shifted / shifted.sum(axis=1, keepdims=True)
    order = (-logits).argsort(axis=1, kind="stable")[:, :top]
    # Not np.take_along_axis: it does the same in Python and takes as long as the rest of this function.
    rows = np.arange(len(logits))[:, np.newaxis]
    return Ranking(order.tolist(), probabilities[rows, order].tolist())
