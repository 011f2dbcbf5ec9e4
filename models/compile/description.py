"""What the owner of a network says of it: the names of its classes, and how an image becomes its input."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict, PositiveInt, TypeAdapter, ValidationError

from convoy.errors import ArtifactError
from convoy.validation import explain
from models.artifact import Preprocessing
from models.compile.public_weights import V1

IMAGENET_LABELS = Path(__file__).resolve().parents[1] / "labels" / "imagenet1k.txt"


@dataclass(frozen=True)
class Description:
    """What is known; None is what is usual for ImageNet. `size` is the side of the crop, `mean` and `std` of pixels in 0..1."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    labels: tuple[str, ...] | None = None
    resize: PositiveInt | None = None
    size: PositiveInt | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def over(self, other: Description) -> Description:
        """This one, and of the other one what is not said here."""
        said = {key: value for key, value in vars(self).items() if value is not None}
        return dataclasses.replace(other, **said)

    def steps(self, channels: int, side: int) -> Preprocessing:
        """The preprocessing for an input [channels, side, side]. Raises ArtifactError when that is another one."""
        if self.size is not None and self.size != side:
            raise ArtifactError(
                f"the network's input is {side} pixels wide, the size given is {self.size}: leave it out"
            )
        mean, std = self.mean or V1.mean, self.std or V1.std
        if len(mean) != channels or len(std) != channels:
            raise ArtifactError(f"the network takes {channels} channels: give as many numbers for mean and for std")
        if not all(math.isfinite(value) for value in (*mean, *std)) or min(std) <= 0:
            told = "; ".join(", ".join(map(str, values)) for values in (mean, std))
            raise ArtifactError(f"mean must be finite and std positive numbers, not {told}")
        resize = self.resize or (V1.resize if side == V1.size else side)
        if resize < side:
            raise ArtifactError(
                f"the short side is resized to {resize}, less than the crop of {side}: give a larger resize"
            )
        return Preprocessing(channels, resize, side, mean, std)


DOCUMENT = TypeAdapter(Description)
KEYS = [field.name for field in dataclasses.fields(Description)]


def read_description(path: Path) -> Description:
    """A JSON object with any of labels, resize, size, mean and std. Raises ArtifactError."""
    try:
        return DOCUMENT.validate_json(path.read_bytes(), strict=True)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise ArtifactError(f"{path}: {explain(error, KEYS)}") from error


def read_labels(given: str) -> tuple[str, ...]:
    """Class names of a file with one a line, or `imagenet1k`. Raises ArtifactError."""
    if given == "imagenet1k":
        return imagenet_labels()
    try:
        labels = tuple(Path(given).read_text().splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(
            f"no labels in {given} ({error}); give a file with one name a line, or imagenet1k"
        ) from error
    if not all(label.strip() for label in labels):
        raise ArtifactError(f"{given} has an empty line: one name a line, in the order of the network's outputs")
    return labels


def imagenet_labels() -> tuple[str, ...]:
    return tuple(IMAGENET_LABELS.read_text().splitlines())


def check_labels(labels: tuple[str, ...] | None, classes: int) -> tuple[str, ...]:
    """Raises ArtifactError when there is not one for each class."""
    if labels is None:
        raise ArtifactError(
            f"the network tells {classes} classes apart and nothing says their names: give --labels FILE "
            f"(one a line{', or imagenet1k' if classes == len(imagenet_labels()) else ''}), or labels in --description"
        )
    if len(labels) != classes:
        raise ArtifactError(f"there are {len(labels)} labels, but the network tells {classes} classes apart")
    return labels
