"""Evaluation data for engines: the validation images of the model's data set, or a folder of the user's own images."""

from __future__ import annotations

import hashlib
import logging
import os
from functools import partial
from pathlib import Path

import numpy as np

from convoy.errors import ArtifactError, ConvoyError
from convoy.image_files import SUFFIX_LIST, SUFFIXES, one_line, split_images
from models.artifact import Artifact, Manifest, Preprocessing, file_hash
from models.datasets import HELD_OUT, PACKAGES, load_data
from models.engines.spec import EvalData, EvalSource
from models.images.decoder import Decoder
from models.images.resize import Pixels
from models.preprocess import prepare_pixels

CALIBRATE = 500  # images for calibration, at most
SKIPPED = 20  # files named in warnings, at most

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
    labelled = _labelled(folder, manifest)
    named = [(file, index) for index, place in labelled.items() for file in _images(place)]
    files = named or [(file, -1) for file in _images(folder)]
    if len(files) < 2:
        raise ArtifactError(
            f"{folder} holds no images to calibrate on: put some hundred there ({SUFFIX_LIST}), "
            "or, so that they also prove the accuracy, into subfolders named as the labels"
        )
    _warn_of_skipped({folder, *labelled.values()}, {file for file, _ in files}, manifest)
    digest = hashlib.sha256(str(manifest.preprocessing).encode())
    for file, index in files:
        digest.update(f"{index} {file_hash(file)}\n".encode())
    name = f"{len(files)} images {'with' if named else 'without'} labels of the folder {folder.name}"
    return EvalSource(name, digest.hexdigest(), partial(_read_folder, files, manifest.preprocessing, bool(named)))


def _labelled(folder: Path, manifest: Manifest) -> dict[int, Path]:
    """The subfolders named as labels, by the number of the label. A label such as `..` never leads out of the folder."""
    places = {index: folder / label for index, label in enumerate(manifest.labels) if _is_inside(label)}
    # Not Path.is_dir, which raises for a name that is too long.
    return {index: place for index, place in places.items() if os.path.isdir(place)}


def _is_inside(label: str) -> bool:
    path = Path(label)  # with several parts for a label such as "handrail / baluster"
    return path != Path() and not path.is_absolute() and ".." not in path.parts


def _images(folder: Path) -> list[Path]:
    return split_images(_entries(folder))[0]


def _entries(folder: Path) -> list[Path]:
    """The files and folders of a folder, sorted; none if it does not exist. Raises ArtifactError if it cannot be read."""
    try:
        return sorted(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise ArtifactError(f"{folder} cannot be read: {error.strerror}") from error


def _warn_of_skipped(read: set[Path], used: set[Path], manifest: Manifest) -> None:
    """Names files and folders that are not read: images missing from a calibration must not go unnoticed."""
    known = used | read
    skipped = sorted(path for place in read for path in _entries(place) if path not in known)
    for path in skipped[:SKIPPED]:
        if os.path.isdir(path):  # Path.is_dir raises in a folder that may be listed but not entered
            reason = f"no label of {manifest.name} has this name"
        elif path.suffix.lower() in SUFFIXES:
            reason = "it is in no folder of a label"
        else:
            reason = f"no image by its suffix ({SUFFIX_LIST})"
        log.warning("%s is skipped: %s", one_line(path), reason)
    if len(skipped) > SKIPPED:
        log.warning("%d more files and folders are skipped", len(skipped) - SKIPPED)


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
        raise ArtifactError(f"{one_line(file)}: {error}; convert it, or remove it from the folder") from error
