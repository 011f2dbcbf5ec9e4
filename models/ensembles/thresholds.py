"""Thresholds of a cascade, fitted on a validation set for a target accuracy or a cost budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convoy.errors import ConfigError
from models.ensembles.confidence import Measure, entropy, margin

# Losses of accuracy that are tried in order; the first within the budget is taken.
LOSSES = tuple(np.arange(0, 0.1001, 0.0005))


@dataclass(frozen=True)
class Candidate:
    """A stage: its scores [n, classes] on the validation set and its cost per image, in any unit."""

    name: str
    scores: NDArray[np.float32]
    cost: float


@dataclass(frozen=True)
class Fitted:
    """A cascade's thresholds (one fewer than stages) and their results on the validation set.

    `shares` of the images (0..1) that reach each stage; `cost` per image in the candidates' unit.
    """

    measure: Measure
    thresholds: tuple[float, ...]
    shares: tuple[float, ...]
    accuracy: float
    cost: float


def fit_for_accuracy(
    stages: Sequence[Candidate], labels: NDArray[np.int64], target: float, measure: Measure = "margin"
) -> Fitted:
    """The cascade that passes on the fewest images with an accuracy of at least `target` (0..1).

    Thresholds are fitted from the last pair of stages to the first, with all later stages as one network. When the target
    cannot be reached, the most accurate cascade is returned.
    """
    right = stages[-1].scores.argmax(axis=1) == labels
    thresholds: list[float] = []
    for stage in reversed(stages[:-1]):
        own = stage.scores.argmax(axis=1) == labels
        confidence = _confidence(stage.scores, measure)
        order = np.argsort(confidence, kind="stable")
        # Accuracy when the k least confident images are passed on, for k from 0 to all.
        gained = np.concatenate([[0], np.cumsum(right[order].astype(np.int64) - own[order])])
        accuracy = (own.sum() + gained) / len(labels)
        enough = np.flatnonzero(accuracy >= min(target, accuracy.max()))
        passed = int(_between(confidence[order], enough))
        thresholds.insert(0, _threshold(confidence[order], passed))
        right = np.where(confidence < thresholds[0], right, own)
    return _measured(stages, labels, measure, thresholds)


def fit_for_budget(
    stages: Sequence[Candidate], labels: NDArray[np.int64], budget: float, measure: Measure = "margin"
) -> Fitted:
    """The most accurate cascade with a cost of at most `budget` per image.

    Raises ConfigError when the first stage alone costs more.
    """
    if stages[0].cost > budget:
        raise ConfigError(
            f"{stages[0].name} alone costs {stages[0].cost:g} per image, more than the budget of {budget:g}"
        )
    best = max(float((stage.scores.argmax(axis=1) == labels).mean()) for stage in stages)
    for loss in LOSSES:
        fitted = fit_for_accuracy(stages, labels, best - loss, measure)
        if fitted.cost <= budget:
            return fitted
    return _measured(stages, labels, measure, [-np.inf] * (len(stages) - 1))


def _confidence(scores: NDArray[np.float32], measure: Measure) -> NDArray[np.float64]:
    return (margin(scores) if measure == "margin" else -entropy(scores)).astype(np.float64)


def _between(confidence: NDArray[np.float64], counts: NDArray[np.int64]) -> np.int64:
    """The first count that falls between two different confidences: a threshold cannot separate equal ones."""
    separates = (counts == 0) | (counts == len(confidence))
    inside = ~separates
    separates[inside] = confidence[counts[inside] - 1] < confidence[counts[inside]]
    return counts[separates][0] if separates.any() else np.int64(len(confidence))


def _threshold(confidence: NDArray[np.float64], passed: int) -> float:
    """A number above exactly `passed` of the ascending confidences."""
    if passed == 0:
        return -np.inf
    if passed == len(confidence):
        return np.inf
    return float((confidence[passed - 1] + confidence[passed]) / 2)


def _measured(
    stages: Sequence[Candidate], labels: NDArray[np.int64], measure: Measure, thresholds: Sequence[float]
) -> Fitted:
    reached = np.ones(len(labels), np.bool_)
    right = np.zeros(len(labels), np.bool_)
    shares, cost = [], 0.0
    for stage, threshold in zip(stages, (*thresholds, -np.inf), strict=True):
        shares.append(float(reached.mean()))
        cost += shares[-1] * stage.cost
        right = np.where(reached, stage.scores.argmax(axis=1) == labels, right)
        reached &= _confidence(stage.scores, measure) < threshold
    written = tuple(_written(threshold, measure) for threshold in thresholds)
    return Fitted(measure, written, tuple(shares), float(right.mean()), cost)


def _written(threshold: float, measure: Measure) -> float:
    """The threshold for a configuration: a margin in 0..1, or an entropy of at least 0."""
    if measure == "margin":
        return float(np.clip(threshold, 0.0, 1.0))
    return float(np.clip(-threshold, 0.0, np.finfo(np.float32).max))
