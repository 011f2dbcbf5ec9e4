"""Accuracy on a data set's test images, whose labels only report."""

from __future__ import annotations

import numpy as np

from models.artifact import Preprocessing
from models.datasets import Split
from models.engines.engine import Engine
from models.engines.logits import run_checked
from models.preprocess import prepare_pixels

ROWS = 100  # per batch


def top1_share(engine: Engine, images: Split, steps: Preprocessing) -> float:
    """Share of the images whose best class is the label, 0..1. Raises EngineFailed for an image without an answer."""
    right = 0
    for start in range(0, len(images.labels), ROWS):
        rows = prepare_pixels(images.images[start : start + ROWS], steps)
        right += int(np.sum(run_checked(engine, rows).argmax(1) == images.labels[start : start + ROWS]))
    return right / len(images.labels)
