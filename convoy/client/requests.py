"""The classify request and its images, independent of the protocol that sends it."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from convoy.errors import InvalidInput
from convoy.image_files import SUFFIX_LIST, split_images

Image = bytes | Path


def new_id() -> str:
    """A random request id: 32 hexadecimal digits."""
    return uuid.uuid4().hex


@dataclass(frozen=True)
class ClassifyRequest:
    """A classify request. Retries keep its id, so that an experiment on the server counts it once."""

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
    """The encoded images; files are read. Raises InvalidInput for a file that cannot be read."""
    items = [images] if isinstance(images, (bytes, Path)) else images
    try:
        return tuple(image if isinstance(image, bytes) else image.read_bytes() for image in items)
    except OSError as error:
        raise InvalidInput(f"{error.filename} cannot be read: {error.strerror}") from error


def find_images(folder: Path) -> list[Path]:
    """The image files of a folder and its subfolders, sorted. Raises InvalidInput when there are none."""
    images, _ = split_images(folder.rglob("*"))
    if not images:
        raise InvalidInput(f"no images in {folder}; looked for {SUFFIX_LIST}")
    return images
