"""Imports trained weights as artifacts: public ones by name, or a file for an architecture of the zoo."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from convoy.errors import ArtifactError
from models.architectures.facts import read_facts
from models.artifact import Artifact, Preprocessing
from models.compile.compile import Plan, compile_artifact, compile_net
from models.compile.description import Description, check_labels
from models.compile.public_weights import find_public
from models.datasets import cache_folder
from models.importing.download import download
from models.importing.from_hubs import HubModel
from models.zoo.registry import find_architecture


@dataclass(frozen=True)
class OwnWeights:
    """A file of weights for an architecture of the zoo, with labels by class index, and preprocessing."""

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
    """Compiles a file of weights for an architecture of the zoo. Raises NotFound or ArtifactError."""
    plan = Plan(
        weights.architecture,
        "imported",
        weights.preprocessing,
        source=f"imported from {weights.file.name}",
        licence="not stated",
        accuracy={"how": "not measured"},
        labels=weights.labels,
    )
    return compile_artifact(name, plan, weights.file, out)


def import_hub(name: str, model: HubModel, description: Description, out: Path) -> Artifact:
    """Compiles a network of timm or torchvision. Raises ArtifactError."""
    steps = model.steps(description)
    with torch.no_grad():
        output = model.net.eval()(torch.zeros(1, steps.channels, steps.size, steps.size))
    if not isinstance(output, torch.Tensor) or output.ndim != 2:
        raise ArtifactError(f"{model.source} is not a classifier: its output is not [images, classes]")
    plan = Plan(
        model.source.split(",")[0].replace(" ", "/"),
        "imported",
        steps,
        source=model.source,
        licence=model.licence,
        accuracy={"how": "not measured"},
        labels=check_labels(description.over(model.known).labels, output.shape[1]),
    )
    return compile_net(name, plan, model.net, out)


def own_weights(architecture: str, file: Path, description: Description) -> OwnWeights:
    """Describes a file of weights for the zoo. Raises NotFound, and ArtifactError for an incomplete description."""
    channels, side, _ = find_architecture(architecture).input
    labels = description.labels
    if labels is None:
        labels = check_labels(None, read_facts()[architecture].classes)
    return OwnWeights(architecture, file, labels, description.steps(channels, side))
