"""The learning rate as a function of the step, so that a resumed run needs no other state."""

from __future__ import annotations

import math

from models.train.recipes import Recipe

INITIAL = 0.1  # rate at the start of a cycle, as a fraction of its peak
FINAL = 1e-4  # rate at the end of a cycle, as a fraction of its peak


def rate_at(step: int, steps_per_epoch: int, recipe: Recipe) -> float:
    """The rate at `step` (from 0): one cycle (arXiv 1708.07120), then optionally the falling part of a second one."""
    first = (recipe.epochs - recipe.restart_epochs) * steps_per_epoch
    if step >= first:
        share = (step - first) / max(1, recipe.restart_epochs * steps_per_epoch - 1)
        return _cosine(recipe.restart_rate, FINAL * recipe.restart_rate, share)
    top = max(recipe.warm_up * first - 1, 1e-9)
    if step <= top:
        return _cosine(INITIAL * recipe.peak_rate, recipe.peak_rate, step / top)
    return _cosine(recipe.peak_rate, FINAL * recipe.peak_rate, (step - top) / max(first - 1 - top, 1e-9))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))
