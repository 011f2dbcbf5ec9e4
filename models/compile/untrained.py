"""Artifacts with random weights, for measurements: time, memory and energy do not depend on the weights."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

import convoy
from models.architectures.facts import Facts, read_facts
from models.artifact import IMAGE_MODEL, MANIFEST, TENSOR_MODEL, WEIGHTS, Artifact, Manifest, Preprocessing, file_hash
from models.artifact_folder import new_artifact
from models.compile.export import OPSET, export
from models.zoo.registry import find_architecture

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RECIPE = "torchvision IMAGENET1K_V1"  # the same recipe and crop for all, so that networks are compared, not recipes


def imagenet_architectures() -> list[str]:
    """Architectures whose ImageNet accuracy is published for the same recipe."""
    return [name for name, facts in read_facts().items() if facts.published_by == RECIPE]


def export_untrained(name: str, out: Path) -> Artifact:
    """An artifact with random weights and the published accuracy. Raises NotFound, ArtifactError."""
    architecture = find_architecture(name)
    torch.manual_seed(0)
    net = architecture.build()
    channels, side, _ = architecture.input
    steps = Preprocessing(channels, side * 256 // 224, side, MEAN[:channels], STD[:channels])
    with new_artifact(out) as folder:
        _write(name, net, steps, folder)
    return Artifact.load(out)


def _write(name: str, net: nn.Module, steps: Preprocessing, folder: Path) -> None:
    facts = read_facts()[name]
    parity = export(net, steps, folder)
    manifest = Manifest(
        name=name,
        version="1",
        architecture=name,
        dataset="imagenet1k",
        labels=tuple(str(index) for index in range(facts.classes)),
        preprocessing=steps,
        params=facts.params,
        macs=facts.macs,
        accuracy=published(facts),
        files={file: file_hash(folder / file) for file in (IMAGE_MODEL, TENSOR_MODEL, WEIGHTS)},
        parity=parity,
        made={
            "by": f"convoy {convoy.__version__}",
            "torch": torch.__version__,
            "opset": OPSET,
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        },
        source="random weights, seed 0: for measurements only",
        licence="Apache-2.0",
    )
    (folder / MANIFEST).write_text(manifest.to_json())


def published(facts: Facts) -> dict[str, Any]:
    """A published accuracy as a manifest's `accuracy`; empty when there is none."""
    if facts.published_top1 is None:
        return {}
    how = f"published: {facts.published_by}; not measured here"
    return {"top1": facts.published_top1, "images": 50_000, "split": "ImageNet validation", "how": how}
