"""Evaluation data for engines: the validation images of the model's data set, or a folder of the user's own images."""

from __future__ import annotations

import hashlib
import logging
from functools import partial
from pathlib import Path

import numpy as np

from convoy.errors import ArtifactError, ConvoyError
from convoy.image_files import SUFFIX_LIST, SUFFIXES, split_images
from models.artifact import Artifact, Manifest, Preprocessing, file_hash
from models.datasets import HELD_OUT, PACKAGES, load_data
from models.engines.spec import EvalData, EvalSource
from models.images.decoder import Decoder
from models.images.resize import Pixels
from models.preprocess import prepare_pixels

CALIBRATE = 500  # images for calibration, at most

log = logging.getLogger("convoy.engines")


def find_eval_source(artifact: Artifact, folder: Path | None = None) -> EvalSource | None:
    """The images of `folder`, by default the validation images of the model's data set; None if it has none.

    Reads only a folder's files, to hash them. Raises ArtifactError for a folder without images.
    """
    manifest = artifact.manifest
    if folder is not None:
        return _folder_source(folder, manifest)
    if manifest.dataset not in PACKAGES:
        return None
    package = PACKAGES[manifest.dataset]
    text = f"{package.sha256} {HELD_OUT} {CALIBRATE} {manifest.preprocessing}"
    name = f"{manifest.dataset}: of its last {HELD_OUT} training images, {CALIBRATE} calibrate, the rest judge"
    return EvalSource(name, hashlib.sha256(text.encode()).hexdigest(), partial(_validation_data, manifest))


def _validation_data(manifest: Manifest) -> EvalData:
    data = load_data(manifest.dataset)
    if data.labels != manifest.labels:
        raise ArtifactError(
            f"{manifest.name} has other labels than {manifest.dataset}: name a folder of its own images with --calibration"
        )
    rows = prepare_pixels(data.held_out.images, manifest.preprocessing)
    return EvalData(rows[:CALIBRATE], rows[CALIBRATE:], data.held_out.labels[CALIBRATE:])


def _folder_source(folder: Path, manifest: Manifest) -> EvalSource:
    """Images are labelled if they are in subfolders named as the labels; images directly in the folder are not."""
    named = [(file, index) for index, label in enumerate(manifest.labels) for file in _images(folder / label)]
    files = named or [(file, -1) for file in _images(folder)]
    if len(files) < 2:
        raise ArtifactError(
            f"{folder} holds no images to calibrate on: put some hundred there ({SUFFIX_LIST}), "
            "or, so that they also prove the accuracy, into subfolders named as the labels"
        )
    _warn_of_skipped(folder, {file for file, _ in files}, manifest)
    digest = hashlib.sha256(str(manifest.preprocessing).encode())
    for file, index in files:
        digest.update(f"{index} {file_hash(file)}\n".encode())
    name = f"{len(files)} images {'with' if named else 'without'} labels of the folder {folder.name}"
    return EvalSource(name, digest.hexdigest(), partial(_read_folder, files, manifest.preprocessing, bool(named)))


def _images(folder: Path) -> list[Path]:
    return split_images(folder.iterdir())[0] if folder.is_dir() else []


def _warn_of_skipped(folder: Path, used: set[Path], manifest: Manifest) -> None:
    """Names every file and folder that is not read: images missing from a calibration must not go unnoticed."""
    read = {folder} | {folder / label for label in manifest.labels if (folder / label).is_dir()}
    for path in sorted(path for place in read for path in place.iterdir() if path not in used | read):
        if path.is_dir():
            reason = f"no label of {manifest.name} has this name"
        elif path.suffix.lower() in SUFFIXES:
            reason = "it is in no folder of a label"
        else:
            reason = f"no image by its suffix ({SUFFIX_LIST})"
        log.warning("%s is skipped: %s", path, reason)


def _read_folder(files: list[tuple[Path, int]], steps: Preprocessing, labelled: bool) -> EvalData:
    """Every fourth image is for calibration, the others for the accuracy check."""
    decoder = Decoder(steps)
    rows = np.stack([_read(file, decoder) for file, _ in files])
    labels = np.array([index for _, index in files], np.int64)
    for_calibration = np.arange(len(files)) % 4 == 0
    labels = labels[~for_calibration]
    return EvalData(rows[for_calibration][:CALIBRATE], rows[~for_calibration], labels if labelled else None)


def _read(file: Path, decoder: Decoder) -> Pixels:
    """Decodes a file to a row, as the server would. Raises ArtifactError that names the file."""
    try:
        return decoder.decode(file.read_bytes())
    except (ConvoyError, OSError) as error:
        raise ArtifactError(f"{file}: {error}; convert it, or remove it from the folder") from error
