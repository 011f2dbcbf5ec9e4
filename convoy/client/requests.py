"""What a client asks, once for every way to send it."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from convoy.errors import InvalidInput

Image = bytes | Path
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pnm"})


def new_id() -> str:
    return uuid.uuid4().hex


@dataclass(frozen=True)
class Question:
    """A classify request. Its id stays the same through retries, so that a server counts it once."""

    model: str
    images: tuple[bytes, ...]
    top_k: int = 5
    threshold: float = 0.0
    labels: bool = True
    version: str = ""
    priority: int = 0
    energy: bool = False
    id: str = field(default_factory=new_id)


def read_images(images: Image | Sequence[Image]) -> tuple[bytes, ...]:
    """The encoded images, read where they are files. Raises InvalidInput for a file that cannot be read."""
    listed = [images] if isinstance(images, (bytes, Path)) else images
    try:
        return tuple(image if isinstance(image, bytes) else image.read_bytes() for image in listed)
    except OSError as error:
        raise InvalidInput(f"{error.filename} cannot be read: {error.strerror}") from error


def list_folder(folder: Path) -> tuple[list[Path], list[Path]]:
    """The files of a folder and the folders in it, in order: images by their names, and the others."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    images = [path for path in files if path.suffix.lower() in SUFFIXES]
    return images, [path for path in files if path.suffix.lower() not in SUFFIXES]


def find_images(folder: Path) -> list[Path]:
    """The image files of a folder and the folders in it, in order. Raises InvalidInput when there are none."""
    images, _ = list_folder(folder)
    if not images:
        raise InvalidInput(f"no images in {folder}; looked for {', '.join(sorted(SUFFIXES))}")
    return images
