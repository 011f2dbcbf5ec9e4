"""`python -m models.calibrate MODEL…`: fits each model's temperature on the validation set and writes it into the manifest."""

from __future__ import annotations

import argparse
import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np

from convoy.files import write_file
from models.artifact import BUNDLED, MANIFEST, Artifact
from models.datasets import PACKAGES, load_data
from models.engines.backends.registry import load_engine
from models.engines.logits import run_checked
from models.ensembles.calibration import calibrate
from models.preprocess import prepare_pixels

BATCH = 100

log = logging.getLogger("convoy.calibrate")


def fit_calibration(artifact: Artifact, threads: int = 0) -> dict[str, Any]:
    """The manifest's `calibration`; empty where there is no validation set with the model's labels.

    Raises EngineFailed when an image has no finite logits.
    """
    manifest = artifact.manifest
    if manifest.dataset not in PACKAGES:
        return {}
    data = load_data(manifest.dataset)
    if data.labels != manifest.labels:
        return {}
    engine = load_engine(artifact.image_model, threads)
    images, labels = data.held_out.images, data.held_out.labels
    batches = (images[start : start + BATCH] for start in range(0, len(images), BATCH))
    logits = np.concatenate([run_checked(engine, prepare_pixels(batch, manifest.preprocessing)) for batch in batches])
    return dataclasses.asdict(calibrate(logits, labels)) | {"split": "held-out"}


def write_calibration(folder: Path) -> Artifact:
    """Fits the temperature of an artifact and writes it into the manifest. Raises ArtifactError."""
    artifact = Artifact.load(folder)
    manifest = dataclasses.replace(artifact.manifest, calibration=fit_calibration(artifact))
    write_file(folder / MANIFEST, manifest.to_json())
    return Artifact.load(folder)


def main() -> None:
    """Fits the temperature of each model named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m models.calibrate", description=__doc__)
    parser.add_argument("models", nargs="+", help="names of bundled models, or folders of artifacts")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in parser.parse_args().models:
        folder = BUNDLED / name if (BUNDLED / name).is_dir() else Path(name)
        found = write_calibration(folder).manifest.calibration
        if not found:
            log.info("%s: no labelled validation set, so no temperature", name)
            continue
        log.info(
            "%s: temperature %.3f, calibration error %.2f %% before, %.2f %% after, on %d validation images",
            name, found["temperature"], 100 * found["ece_before"], 100 * found["ece_after"], found["images"],
        )  # fmt: skip


if __name__ == "__main__":
    main()
