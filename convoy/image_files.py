"""Finds the image files of a folder: one list of suffixes for the client, the load generator and calibration.

The server checks the first bytes of an image, never its name.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

# One or more for every format that the server decodes (models/images/headers.py).
SUFFIXES = frozenset(
    {
        ".bmp",
        ".gif",
        ".jfif",
        ".jpe",
        ".jpeg",
        ".jpg",
        ".pbm",
        ".pgm",
        ".png",
        ".pnm",
        ".ppm",
        ".tif",
        ".tiff",
        ".webp",
    }
)
SUFFIX_LIST = ", ".join(sorted(SUFFIXES))  # for error messages


def split_images(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """The image files among `paths` by their suffixes, and the other files; both sorted, folders left out."""
    # Not Path.is_file, which raises for a file in a folder that may be listed but not entered.
    files = sorted(path for path in paths if os.path.isfile(path))
    images = [path for path in files if path.suffix.lower() in SUFFIXES]
    return images, [path for path in files if path.suffix.lower() not in SUFFIXES]


def one_line(path: Path) -> str:
    """A path for a message: line breaks, terminal controls and bytes that are not UTF-8 are escaped."""
    text = str(path)
    return text if text.isprintable() else repr(text)
