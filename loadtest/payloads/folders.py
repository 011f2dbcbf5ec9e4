"""Images of a folder, with labels from sub-folders, file name prefixes or a CSV file."""

from __future__ import annotations

import csv
from pathlib import Path

from convoy.errors import ConfigError
from convoy.files import expand_home
from convoy.image_files import SUFFIX_LIST, split_images
from loadtest.payloads.item import Expected, Item
from loadtest.plan import Payload


def read_folder(payload: Payload) -> tuple[tuple[Item, ...], int]:
    """At most `count` images, evenly spread over the folder, and the number of images in it. Raises ConfigError."""
    root = expand_home(payload.folder)
    files, _ = split_images(root.rglob("*"))
    if not files:
        raise ConfigError(
            f"no images in {root} (looked for {SUFFIX_LIST}, in sub-folders too); choose another folder with --images"
        )
    wanted = min(payload.count, len(files))
    chosen = [files[number * len(files) // wanted] for number in range(wanted)]
    table = _read_csv(payload) if payload.labels == "csv" else {}
    try:
        bodies = [path.read_bytes() for path in chosen]
    except OSError as error:
        raise ConfigError(f"{error.filename} cannot be read: {error.strerror}") from error
    pairs = zip(bodies, chosen, strict=True)
    return tuple(Item(body, expected=_expected(path, root, payload, table)) for body, path in pairs), len(files)


def _read_csv(payload: Payload) -> dict[str, str]:
    try:
        with open(payload.labels_csv, newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"cannot read the labels: {error}") from error
    if not rows or not {"file", "label"} <= rows[0].keys():
        raise ConfigError(f"{payload.labels_csv} needs the columns file,label")
    return {row["file"]: row["label"] for row in rows}


def _expected(path: Path, root: Path, payload: Payload, table: dict[str, str]) -> Expected:
    relative = path.relative_to(root)
    if payload.labels == "none":
        return None
    if payload.labels == "csv":
        label = table.get(str(relative), table.get(path.name))
        if label is None:
            raise ConfigError(f"{payload.labels_csv} has no label for {relative}")
        return _number_or_text(label)
    if payload.labels == "folder":
        if len(relative.parts) < 2:
            raise ConfigError(
                f"labels: folder needs {root}/LABEL/{path.name}; {path.name} is not in the folder of a label"
            )
        return _number_or_text(relative.parts[0])
    prefix = path.stem.split("_")[0]
    if not prefix.isdecimal():
        raise ConfigError(
            f"labels: prefix needs a class number before the first underscore, as in 0207_golden.jpg: {path.name}"
        )
    return int(prefix)


def _number_or_text(label: str) -> Expected:
    return int(label) if label.isdecimal() else label
