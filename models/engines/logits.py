"""Which logits are valid results, and how much the logits of two engines differ.

A row has a distribution when it holds no NaN and its largest logit is finite. A logit of minus infinity is valid: it excludes
its class, as in a network that masks classes or ends in the logarithm of probabilities.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convoy.errors import EngineFailed
from models.engines.engine import Engine

DOT_VALUES = 10_000  # OpenBLAS computes larger dot products on several threads, which then spin before they sleep

Logits = NDArray[np.float32]


def has_distribution(logits: Logits) -> NDArray[np.bool_]:
    """bool [n]: for each row of logits [n, classes], whether its softmax is a distribution."""
    finite: NDArray[np.bool_] = np.isfinite(logits.max(axis=1))
    return finite


def all_have_distribution(logits: Logits) -> bool:
    """Whether every row has a distribution. Called for every batch: if all logits are finite, one dot product proves it."""
    if logits.size <= DOT_VALUES and math.isfinite(np.vdot(logits, logits)):
        return True
    return bool(has_distribution(logits).all())


def run_checked(engine: Engine, batch: NDArray[Any]) -> Logits:
    """Logits [n, classes] of a batch. Raises EngineFailed, also for a row without a distribution."""
    logits = engine.run(batch)
    if not all_have_distribution(logits):
        invalid = len(logits) - int(has_distribution(logits).sum())
        raise EngineFailed(f"the logits of {invalid} of {len(logits)} images are NaN or infinite")
    return logits


def logit_error(reference: Logits, logits: Logits) -> float:
    """The largest difference of two arrays [n, classes], relative to the reference's largest logit.

    Infinite if either has a row without a distribution, or if only one of them rules a class out. Never NaN: every
    comparison with NaN is false, so that a check `error > limit` would pass.
    """
    if not (all_have_distribution(reference) and all_have_distribution(logits)):
        return math.inf
    unequal = reference != logits  # minus infinity minus itself is NaN
    with np.errstate(over="ignore"):
        differences = np.abs(logits[unequal] - reference[unequal])
    scale = np.abs(reference[np.isfinite(reference)]).max() or 1.0
    return float(differences.max(initial=0.0) / scale)
