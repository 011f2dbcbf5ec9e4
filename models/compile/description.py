"""A user's description of a network: the names of its classes and its preprocessing."""

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
    """None means ImageNet's usual value. `size` is the side of the crop in pixels; `mean` and `std` are of pixels in 0..1."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    labels: tuple[str, ...] | None = None
    resize: PositiveInt | None = None
    size: PositiveInt | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def over(self, other: Description) -> Description:
        """This description, with `other`'s values where it has none."""
        values = {key: value for key, value in vars(self).items() if value is not None}
        return dataclasses.replace(other, **values)

    def steps(self, channels: int, side: int) -> Preprocessing:
        """The preprocessing for an input [channels, side, side]. Raises ArtifactError when it does not fit the description."""
        if self.size is not None and self.size != side:
            raise ArtifactError(f"the network's input is {side} pixels wide, but size is {self.size}: leave it out")
        mean = V1.mean if self.mean is None else self.mean
        std = V1.std if self.std is None else self.std
        if len(mean) != channels or len(std) != channels:
            raise ArtifactError(f"the network takes {channels} channels: give as many numbers for mean and for std")
        if not all(math.isfinite(value) for value in (*mean, *std)) or min(std) <= 0:
            values = "; ".join(", ".join(map(str, numbers)) for numbers in (mean, std))
            raise ArtifactError(f"mean must be finite and std positive numbers, not {values}")
        resize = self.resize or (V1.resize if side == V1.size else side)
        if resize < side:
            raise ArtifactError(
                f"the short side is resized to {resize}, less than the crop of {side}: give a larger resize"
            )
        return Preprocessing(channels, resize, side, mean, std)


DOCUMENT = TypeAdapter(Description)
KEYS = [field.name for field in dataclasses.fields(Description)]


def read_description(path: Path) -> Description:
    """Reads a JSON object with any of labels, resize, size, mean and std. Raises ArtifactError."""
    try:
        return DOCUMENT.validate_json(path.read_bytes(), strict=True)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise ArtifactError(f"{path}: {explain(error, KEYS)}") from error


def read_labels(source: str) -> tuple[str, ...]:
    """Class names from a file with one name per line, or those of `imagenet1k`. Raises ArtifactError."""
    if source == "imagenet1k":
        return imagenet_labels()
    try:
        labels = tuple(Path(source).read_text().splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(
            f"no labels in {source} ({error}); give a file with one name per line, or imagenet1k"
        ) from error
    if not all(label.strip() for label in labels):
        raise ArtifactError(f"{source} has an empty line: one name per line, in the order of the network's outputs")
    return labels


def imagenet_labels() -> tuple[str, ...]:
    """Names of the 1000 classes of ILSVRC 2012, in the order of the public weights' outputs."""
    return tuple(IMAGENET_LABELS.read_text().splitlines())


def check_labels(labels: tuple[str, ...] | None, classes: int) -> tuple[str, ...]:
    """Returns the labels. Raises ArtifactError unless there is one per class."""
    if labels is None:
        raise ArtifactError(
            f"the network has {classes} classes without names: give --labels FILE "
            f"(one per line{', or imagenet1k' if classes == len(imagenet_labels()) else ''}), or labels in --description"
        )
    if len(labels) != classes:
        raise ArtifactError(f"there are {len(labels)} labels, but the network has {classes} classes")
    if not all(label.strip() for label in labels):
        raise ArtifactError("a label is empty: name every class, in the order of the network's outputs")
    return labels
