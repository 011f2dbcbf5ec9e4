"""Evaluates served models on a validation set, to choose members, weights and thresholds."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convoy.errors import ConfigError
from models.artifact import Artifact
from models.datasets import load_data
from models.engines.backends.registry import load_engine
from models.engines.logits import run_checked
from models.ensembles.combine import combine
from models.ensembles.views import View
from models.images.resize import Pixels
from serve.config.schema import ModelConfig
from serve.ensembles.multi_view import Geometry, ViewsDecoder

BATCH_ROWS = 100
TIMED_IMAGES = 50


@dataclass(frozen=True)
class ValidationSet:
    """Images (encoded bytes, or UINT8 pixels [height, width, channels]) and their class indices."""

    images: Sequence[bytes | Pixels]
    labels: NDArray[np.int64]


def load_validation_set(source: str, labels: Sequence[str]) -> ValidationSet:
    """The validation split of a data set, or a folder with one folder of images per label. Raises ConfigError."""
    folder = Path(source)
    if not folder.is_dir():
        split = load_data(source).held_out
        return ValidationSet(list(split.images), split.labels)
    files = [(file, index) for index, label in enumerate(labels) for file in sorted((folder / label).glob("*.*"))]
    if not files:
        raise ConfigError(f"{folder} has no images; put them into folders named {', '.join(labels)}"[:300])
    return ValidationSet([file.read_bytes() for file, _ in files], np.array([index for _, index in files]))


class Voter:
    """A model with its views, loaded in this process for evaluation."""

    def __init__(
        self, model: ModelConfig, views: tuple[View, ...], calibrated: bool, threads: int, pixels: int
    ) -> None:
        """Raises ArtifactError, or ConfigError when `calibrated` is set and the artifact has no temperature."""
        artifact = Artifact.load(model.folder)
        manifest = artifact.manifest
        if calibrated and not manifest.calibration:
            raise ConfigError(
                f"{model.name} has no temperature; fit one with: python -m models.calibrate {model.folder}"
            )
        self.name = model.name
        self.views = views
        self.labels = manifest.labels
        self._temperature = np.float32(manifest.calibration["temperature"] if calibrated else 1.0)
        self._decoder = ViewsDecoder([Geometry.of(manifest.preprocessing, views)], pixels)
        self._engine = load_engine(artifact.image_model, threads)

    def scores(self, images: Sequence[bytes | Pixels]) -> NDArray[np.float32]:
        """Scores [n, classes]: the mean probability over the views. Raises EngineFailed when logits are not finite."""
        return np.concatenate([self._vote(rows) for rows in self._batches(images)])

    def rows(self, image: bytes | Pixels) -> Pixels:
        """The views of an image, UINT8 [views, size, size, channels]."""
        views: Pixels = self._decoder.decode(image).rows[0][0]
        return views

    def run(self, rows: Pixels) -> None:
        """Runs the engine on views of an image, for timing."""
        self._engine.run(rows)

    def _batches(self, images: Sequence[bytes | Pixels]) -> Iterator[Pixels]:
        each = max(1, BATCH_ROWS // self._decoder.most_views)
        for start in range(0, len(images), each):
            yield np.concatenate([self._decoder.decode(image).rows[0] for image in images[start : start + each]])

    def _vote(self, rows: Pixels) -> NDArray[np.float32]:
        logits = run_checked(self._engine, rows.reshape(-1, *rows.shape[2:])) / self._temperature
        votes = logits.reshape(*rows.shape[:2], -1).transpose(1, 0, 2)
        return combine(votes, np.ones(len(votes)), "mean_probability")


def engine_ms(voters: Sequence[Voter], images: Sequence[bytes | Pixels]) -> float:
    """Median milliseconds for an image until all voters have run, concurrently and on an otherwise idle machine."""
    rows = [[voter.rows(image) for voter in voters] for image in images[:TIMED_IMAGES]]
    times = []
    with ThreadPoolExecutor(len(voters)) as pool:
        for views in rows:
            start = time.perf_counter()
            list(pool.map(Voter.run, voters, views))
            times.append((time.perf_counter() - start) * 1000)
    return float(np.median(times))
