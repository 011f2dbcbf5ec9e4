"""Build specs of the small artifact of `tests.artifacts`, with generated evaluation data."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from convoy.engine_names import Precision
from models.artifact import Artifact
from models.engines.backends.registry import find_backend
from models.engines.spec import EngineSpec, EvalData, EvalSource
from tests.artifacts import CLASSES, SIDE, write_artifact


def quadrants(folder: Path) -> Artifact:
    return Artifact.load(folder if folder.exists() else write_artifact(folder, "quadrants", convolution=True))


def noisy_images(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [n, 8, 8, 1] with one quadrant a little brighter, and the quadrants' numbers [n]."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, CLASSES, count)
    images = generator.integers(0, 200, (count, SIDE, SIDE, 1), np.uint8)
    half = SIDE // 2
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label), 2)
        image[row * half : (row + 1) * half, column * half : (column + 1) * half] += 50
    return images, labels.astype(np.int64)


def source(judge: int = 2000, *, black: bool = False, labelled: bool = True) -> EvalSource:
    """Generated evaluation data; `black` calibration images make a bad calibration."""
    images, labels = noisy_images(100 + judge)
    calibrate = np.zeros_like(images[:100]) if black else images[:100]
    data = EvalData(calibrate, images[100:], labels[100:] if labelled else None)
    text = f"{judge} {black} {labelled}"
    return EvalSource(f"made images {text}", hashlib.sha256(text.encode()).hexdigest(), lambda: data)


def engine_spec(
    artifact: Artifact,
    precision: Precision = "int8",
    backend: str = "onnxruntime",
    eval_source: EvalSource | None = None,
) -> EngineSpec:
    return EngineSpec(artifact, find_backend(backend), precision, eval_source)
