"""Artifacts of architectures that nobody trained here: their time, memory and energy do not depend on what was learnt."""

from __future__ import annotations

import datetime
from pathlib import Path

import torch

import convoy
from models.artifact import IMAGE_MODEL, MANIFEST, TENSOR_MODEL, WEIGHTS, Artifact, Manifest, Preprocessing, file_hash
from models.counts import count_macs, count_params
from models.export import OPSET, export
from models.zoo.published import SOURCE, TOP1
from models.zoo.registry import ARCHITECTURES, find_architecture

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGENET_SIDE = 224


def imagenet_architectures() -> list[str]:
    """Architectures for ImageNet-sized images whose accuracy is published."""
    return [name for name, one in ARCHITECTURES.items() if one.input[1] >= IMAGENET_SIDE and name in TOP1]


def export_untrained(name: str, folder: Path) -> Artifact:
    """An artifact with weights as they begin, and the published accuracy. Raises NotFound, ArtifactError."""
    architecture = find_architecture(name)
    torch.manual_seed(0)
    net = architecture.build()
    channels, side, _ = architecture.input
    steps = Preprocessing(channels, side * 256 // 224, side, MEAN[:channels], STD[:channels])
    params, macs = count_params(net), count_macs(net, architecture.input)
    folder.mkdir(parents=True, exist_ok=True)
    parity = export(net, steps, folder)
    manifest = Manifest(
        name=name,
        version="1",
        architecture=name,
        dataset="imagenet1k",
        labels=tuple(str(index) for index in range(1000)),
        preprocessing=steps,
        params=params,
        macs=macs,
        accuracy={"top1": TOP1[name], "images": 50_000, "split": "ImageNet validation", "how": SOURCE},
        files={file: file_hash(folder / file) for file in (IMAGE_MODEL, TENSOR_MODEL, WEIGHTS)},
        parity=parity,
        made={
            "by": f"convoy {convoy.__version__}",
            "torch": torch.__version__,
            "opset": OPSET,
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        },
        source="weights as they begin, seed 0: for measuring, not for answering",
        licence="Apache-2.0",
    )
    (folder / MANIFEST).write_text(manifest.to_json())
    return Artifact.load(folder)
