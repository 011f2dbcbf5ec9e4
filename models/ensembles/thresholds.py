"""Thresholds of a cascade, fitted on held-out labels for a wanted accuracy or an engine-time budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convoy.errors import ConfigError
from models.ensembles.confidence import Measure, entropy, margin

LOSSES = tuple(np.arange(0, 0.1001, 0.0005))  # tried for a budget, in order: the first that keeps to it is taken


@dataclass(frozen=True)
class Candidate:
    """A stage on held-out images: its scores [n, classes] and what an image costs there, in any unit."""

    name: str
    scores: NDArray[np.float32]
    cost: float


@dataclass(frozen=True)
class Fitted:
    """A cascade's thresholds (one fewer than stages) and what they gave on the images they were fitted on.

    `shares` of the images that each stage is asked for, `cost` per image in the candidates' unit.
    """

    measure: Measure
    thresholds: tuple[float, ...]
    shares: tuple[float, ...]
    accuracy: float
    cost: float


def fit_for_accuracy(
    stages: Sequence[Candidate], labels: NDArray[np.int64], wanted: float, measure: Measure = "margin"
) -> Fitted:
    """The fewest images passed on with which the cascade is right for `wanted` (0..1) of them.

    From the last pair of stages to the first, each threshold is fitted with what comes after as one network. When the
    wanted accuracy is out of reach, the best there is.
    """
    right = stages[-1].scores.argmax(axis=1) == labels
    thresholds: list[float] = []
    for stage in reversed(stages[:-1]):
        own = stage.scores.argmax(axis=1) == labels
        confidence = _confidence(stage.scores, measure)
        order = np.argsort(confidence, kind="stable")
        # The share right when the k least sure images are passed on, for k from 0 to all.
        gained = np.concatenate([[0], np.cumsum(right[order].astype(np.int64) - own[order])])
        accuracy = (own.sum() + gained) / len(labels)
        enough = np.flatnonzero(accuracy >= min(wanted, accuracy.max()))
        passed = int(_between(confidence[order], enough))
        thresholds.insert(0, _threshold(confidence[order], passed))
        right = np.where(confidence < thresholds[0], right, own)
    return _measured(stages, labels, measure, thresholds)


def fit_for_budget(
    stages: Sequence[Candidate], labels: NDArray[np.int64], budget: float, measure: Measure = "margin"
) -> Fitted:
    """The cascade that loses least against the most accurate stage at a cost of at most `budget` per image.

    Raises ConfigError when even the first stage alone costs more.
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
    """The first count that parts images of different confidence, for a threshold cannot part equal ones."""
    parts = (counts == 0) | (counts == len(confidence))
    inside = ~parts
    parts[inside] = confidence[counts[inside] - 1] < confidence[counts[inside]]
    return counts[parts][0] if parts.any() else np.int64(len(confidence))


def _threshold(confidence: NDArray[np.float64], passed: int) -> float:
    """A number that exactly `passed` of the ascending confidences lie below."""
    if passed == 0:
        return -np.inf
    if passed == len(confidence):
        return np.inf
    return float((confidence[passed - 1] + confidence[passed]) / 2)


def _measured(
    stages: Sequence[Candidate], labels: NDArray[np.int64], measure: Measure, thresholds: Sequence[float]
) -> Fitted:
    going_on = np.ones(len(labels), np.bool_)
    right = np.zeros(len(labels), np.bool_)
    shares, cost = [], 0.0
    for stage, threshold in zip(stages, (*thresholds, -np.inf), strict=True):
        shares.append(float(going_on.mean()))
        cost += shares[-1] * stage.cost
        right = np.where(going_on, stage.scores.argmax(axis=1) == labels, right)
        going_on &= _confidence(stage.scores, measure) < threshold
    written = tuple(_written(threshold, measure) for threshold in thresholds)
    return Fitted(measure, written, tuple(shares), float(right.mean()), cost)


def _written(threshold: float, measure: Measure) -> float:
    """The threshold as a configuration takes it: a margin within 0 and 1, an entropy from 0."""
    if measure == "margin":
        return float(np.clip(threshold, 0.0, 1.0))
    return float(np.clip(-threshold, 0.0, np.finfo(np.float32).max))
