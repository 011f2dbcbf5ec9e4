"""From weights that others trained to an artifact: public ones by name, or a file for a named architecture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from convoy.errors import ArtifactError
from models.artifact import Artifact, Preprocessing
from models.compile import Plan, compile_artifact
from models.data import cache_folder
from models.download import download
from models.weights import V1, find_public
from models.zoo.registry import find_architecture


@dataclass(frozen=True)
class OwnWeights:
    """A file of weights for an architecture of the zoo, the names of its classes by index, and its preprocessing."""

    architecture: str
    file: Path
    labels: tuple[str, ...]
    preprocessing: Preprocessing


def import_public(name: str, out: Path) -> Artifact:
    """Fetches, verifies and compiles public weights. Raises NotFound or ArtifactError."""
    weights = find_public(name)
    file = download(weights.url, weights.sha256, cache_folder() / "weights")
    how = "published by torchvision for ImageNet's validation images, not measured here"
    plan = Plan(
        weights.architecture,
        "imagenet1k",
        weights.preprocessing,
        source=weights.url,
        licence="BSD-3-Clause",
        accuracy={"top1": weights.top1, "images": 50_000, "split": "validation", "how": how},
    )
    return compile_artifact(weights.name, plan, file, out)


def import_own(name: str, weights: OwnWeights, out: Path) -> Artifact:
    """Compiles a file of weights. Raises NotFound or ArtifactError."""
    plan = Plan(
        weights.architecture,
        "imported",
        weights.preprocessing,
        source=f"imported from {weights.file.name}",
        licence="as its owner says",
        accuracy={"how": "not measured"},
        labels=weights.labels,
    )
    return compile_artifact(name, plan, weights.file, out)


def default_steps(
    architecture: str, mean: tuple[float, ...] | None = None, std: tuple[float, ...] | None = None
) -> Preprocessing:
    """ImageNet's mean and deviation where none is given; 224 pixels are cropped from a short side of 256, as is usual."""
    channels, side, _ = find_architecture(architecture).input
    mean, std = mean or V1.mean, std or V1.std
    if len(mean) != channels or len(std) != channels:
        raise ArtifactError(f"{architecture} takes {channels} channels: give as many numbers in --mean and --std")
    return Preprocessing(channels, V1.resize if side == V1.size else side, side, mean, std)
