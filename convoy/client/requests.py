"""What a client asks, once for every way to send it."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from convoy.errors import InvalidInput
from convoy.image_files import SUFFIX_LIST, split_images

Image = bytes | Path


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


def find_images(folder: Path) -> list[Path]:
    """The image files of a folder and the folders in it, in order. Raises InvalidInput when there are none."""
    images, _ = split_images(folder.rglob("*"))
    if not images:
        raise InvalidInput(f"no images in {folder}; looked for {SUFFIX_LIST}")
    return images
