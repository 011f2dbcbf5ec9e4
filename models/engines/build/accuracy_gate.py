"""The gate: whether an engine is right enough to be offered, judged pair by pair against the reference on labelled images.

The loss of top-1 is the share of images that only the reference gets right, less the share that only the engine does. Its upper
bound is Tango's score limit for paired proportions (Tango, Statistics in Medicine 17, 1998): unlike bounds that take the number
of discordant pairs for known, it stays honest where hardly any pair is discordant.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtri

from models.engines.logits import logit_error

CONFIDENCE = 0.95

Status = Literal["accepted", "refused", "unproven"]


@dataclass(frozen=True)
class AccuracyCheck:
    """What an engine's answers are beside the reference's. Shares are 0..1; None where there were no labels.

    `lost` and `gained` count images that only the reference, or only the engine, got right; `loss_bound` is the upper 95 % bound
    of the loss. `agreement` is the share of images with the same top-1, `logit_error` the largest difference relative to
    the reference's largest logit, infinite where either answers with NaN or infinity.
    """

    status: Status
    reason: str
    images: int
    budget: float
    agreement: float
    logit_error: float
    reference_top1: float | None = None
    top1: float | None = None
    lost: int | None = None
    gained: int | None = None
    loss_bound: float | None = None


def check_accuracy(
    reference: NDArray[np.float32], logits: NDArray[np.float32], labels: NDArray[np.int64] | None, budget: float
) -> AccuracyCheck:
    """Compares logits [n, classes]. Without labels, or with too few of them, nothing is proven."""
    images = len(reference)
    agreement = float((reference.argmax(1) == logits.argmax(1)).mean())
    error = logit_error(reference, logits)
    if not math.isfinite(error):
        return AccuracyCheck(
            "refused", "it or the reference answers with NaN or infinity", images, budget, agreement, error
        )
    if labels is None:
        return AccuracyCheck("unproven", "the images have no labels", images, budget, agreement, error)
    right, ours = reference.argmax(1) == labels, logits.argmax(1) == labels
    lost, gained = int((right & ~ours).sum()), int((~right & ours).sum())
    bound = loss_bound(lost, gained, images)
    status, reason = _decide(bound, images, budget)
    return AccuracyCheck(
        status=status,
        reason=reason,
        images=images,
        budget=budget,
        agreement=agreement,
        logit_error=error,
        reference_top1=float(right.mean()),
        top1=float(ours.mean()),
        lost=lost,
        gained=gained,
        loss_bound=bound,
    )


def images_needed(budget: float) -> int:
    """So many images at least: with fewer, not even an engine that errs nowhere could be shown to keep within the budget."""
    return math.ceil(float(ndtri(CONFIDENCE)) ** 2 * (1 / budget - 1))


def loss_bound(lost: int, gained: int, images: int, confidence: float = CONFIDENCE) -> float:
    """Upper bound of the loss of top-1: the largest loss that the one-sided score test does not reject."""
    if lost == images:
        return 1.0
    z = float(ndtri(confidence))

    def above(loss: float) -> float:
        return _score(lost, gained, images, loss) + z

    return float(brentq(above, (lost - gained) / images, 1.0 - 1e-12))


def _decide(bound: float, images: int, budget: float) -> tuple[Status, str]:
    if bound <= budget:
        return "accepted", f"at 95 % it loses at most {bound:.2%} of top-1, {budget:.2%} is allowed"
    if images < images_needed(budget):
        return "unproven", f"{images} images are too few to prove {budget:.2%}: it takes {images_needed(budget)}"
    return "refused", f"at 95 % it may lose {bound:.2%} of top-1, {budget:.2%} is allowed"


def _score(lost: int, gained: int, images: int, loss: float) -> float:
    """Tango's statistic: standard normal where `loss` is the true one."""
    a = 2 * images
    b = -lost - gained + (2 * images - lost + gained) * loss
    c = -gained * loss * (1 - loss)
    only_engine = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)  # its most likely share, given the loss
    variance = images * (2 * only_engine + loss * (1 - loss))
    return (lost - gained - images * loss) / math.sqrt(variance) if variance > 0 else 0.0
