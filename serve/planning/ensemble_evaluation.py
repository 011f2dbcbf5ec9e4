"""What served models say of held-out images: the ground on which weights, thresholds and sets are chosen."""

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
    """Images, encoded or as pixels [height, width, channels], and their class indices."""

    images: Sequence[bytes | Pixels]
    labels: NDArray[np.int64]


def load_validation_set(source: str, labels: Sequence[str]) -> ValidationSet:
    """The held-out images of a data set, or those of a folder that has a folder of images per label. Raises ConfigError."""
    folder = Path(source)
    if not folder.is_dir():
        split = load_data(source).held_out
        return ValidationSet(list(split.images), split.labels)
    files = [(file, index) for index, label in enumerate(labels) for file in sorted((folder / label).glob("*.*"))]
    if not files:
        raise ConfigError(f"{folder} has no images: put them into folders named {', '.join(labels)}"[:300])
    return ValidationSet([file.read_bytes() for file, _ in files], np.array([index for _, index in files]))


class Voter:
    """A model with its views, loaded here to be judged."""

    def __init__(
        self, model: ModelConfig, views: tuple[View, ...], calibrated: bool, threads: int, pixels: int
    ) -> None:
        """Raises ArtifactError, or ConfigError when a temperature is asked for that was never fitted."""
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
        """Scores [n, classes]: its looks combined by mean probability. Raises EngineFailed for an image without an answer."""
        return np.concatenate([self._vote(rows) for rows in self._batches(images)])

    def rows(self, image: bytes | Pixels) -> Pixels:
        """Its looks at an image, [looks, size, size, channels]."""
        looks: Pixels = self._decoder.decode(image).rows[0][0]
        return looks

    def run(self, rows: Pixels) -> None:
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
    """Median milliseconds until all voters have looked at an image, all at the same time and nothing else running."""
    rows = [[voter.rows(image) for voter in voters] for image in images[:TIMED_IMAGES]]
    times = []
    with ThreadPoolExecutor(len(voters)) as pool:
        for looks in rows:
            start = time.perf_counter()
            list(pool.map(Voter.run, voters, looks))
            times.append((time.perf_counter() - start) * 1000)
    return float(np.median(times))
