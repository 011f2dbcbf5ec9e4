"""The accuracy check: whether an engine is accurate enough to serve, compared with the reference on the same images.

The loss of top-1 accuracy is the share of images that only the reference classifies correctly, minus the share that only the
engine does. Its upper bound is Tango's score limit for paired proportions (Tango, Statistics in Medicine 17, 1998). Simpler
bounds (Clopper-Pearson on the discordant pairs) treat the number of discordant pairs as known, and are wrong if there are
few: when all of them are losses, they accept an engine at the limit half of the time.
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
    """The result of an accuracy check, written to manifests. Shares are 0..1; None without labels.

    `lost` and `gained` count images that only the reference, or only the engine, classifies correctly; `loss_bound` is the
    upper 95 % bound of the loss, `budget` the loss that is allowed. `agreement` is the share of images with the same top-1
    class. `logit_error` is the largest difference relative to the reference's largest logit, infinite if either has NaN
    or infinity.
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
    """Compares logits [n, classes] of an engine with the reference's, with `labels` [n] if they are known.

    The result is `unproven` without labels or with too few. `budget` is the loss of top-1 accuracy that is allowed, as a share.
    """
    images = len(reference)
    agreement = float((reference.argmax(1) == logits.argmax(1)).mean())
    error = logit_error(reference, logits)
    if not math.isfinite(error):
        return AccuracyCheck("refused", "it or the reference returns NaN or infinity", images, budget, agreement, error)
    if labels is None:
        return AccuracyCheck("unproven", "the images have no labels", images, budget, agreement, error)
    expected, actual = reference.argmax(1) == labels, logits.argmax(1) == labels
    lost, gained = int((expected & ~actual).sum()), int((~expected & actual).sum())
    bound = loss_bound(lost, gained, images)
    status, reason = _decide(bound, images, budget)
    return AccuracyCheck(
        status=status,
        reason=reason,
        images=images,
        budget=budget,
        agreement=agreement,
        logit_error=error,
        reference_top1=float(expected.mean()),
        top1=float(actual.mean()),
        lost=lost,
        gained=gained,
        loss_bound=bound,
    )


def images_needed(budget: float) -> int:
    """The least number of images. With fewer, not even an engine without loss could be proven to be within the budget."""
    return math.ceil(float(ndtri(CONFIDENCE)) ** 2 * (1 / budget - 1))


def loss_bound(lost: int, gained: int, images: int, confidence: float = CONFIDENCE) -> float:
    """Upper bound of the loss of top-1 accuracy: the largest loss that the one-sided score test does not reject."""
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
        return "unproven", f"{images} images are too few to prove {budget:.2%}: {images_needed(budget)} are needed"
    return "refused", f"at 95 % it may lose {bound:.2%} of top-1, {budget:.2%} is allowed"


def _score(lost: int, gained: int, images: int, loss: float) -> float:
    """Tango's statistic: standard normal if `loss` is the true loss."""
    a = 2 * images
    b = -lost - gained + (2 * images - lost + gained) * loss
    c = -gained * loss * (1 - loss)
    only_engine = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (
        2 * a
    )  # maximum-likelihood share of `gained`, given the loss
    variance = images * (2 * only_engine + loss * (1 - loss))
    return (lost - gained - images * loss) / math.sqrt(variance) if variance > 0 else 0.0
