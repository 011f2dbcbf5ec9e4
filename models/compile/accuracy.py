"""Top-1 accuracy on a test set, which is only reported and never used for choices."""

from __future__ import annotations

import numpy as np

from models.artifact import Preprocessing
from models.datasets import Split
from models.engines.engine import Engine
from models.engines.logits import run_checked
from models.preprocess import prepare_pixels

ROWS = 100  # per batch


def top1_share(engine: Engine, split: Split, steps: Preprocessing) -> float:
    """Top-1 accuracy, 0..1. Raises EngineFailed when an image has no finite logits."""
    right = 0
    for start in range(0, len(split.labels), ROWS):
        rows = prepare_pixels(split.images[start : start + ROWS], steps)
        right += int(np.sum(run_checked(engine, rows).argmax(1) == split.labels[start : start + ROWS]))
    return right / len(split.labels)
