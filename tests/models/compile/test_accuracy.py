"""Accuracies and temperatures in manifests, measured again on the full data sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models.artifact import BUNDLED, Artifact
from models.calibrate import fit_calibration
from models.compile.checkpoints import load_weights
from models.compile.compile import measure_accuracy
from models.datasets import load_data
from models.engines.backends.registry import load_engine
from models.images.decoder import Decoder
from models.train.recipes import RECIPES
from models.zoo.registry import find_architecture

pytestmark = pytest.mark.slow

IMAGENET_MEAN, IMAGENET_STD = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

LEAST = {"lenet5-mnist": 0.989, "resnet20-cifar10": 0.905}
RESIDUAL_OR_DENSE = {
    "preresnet-cifar10",
    "wide-resnet-cifar10",
    "resnext-cifar10",
    "stochastic-depth-cifar10",
    "densenet-cifar10",
}


@pytest.mark.parametrize("name", [name for name in RECIPES if (BUNDLED / name).is_dir()])
def test_bundled_models_reach_the_accuracy_of_their_manifest(name: str) -> None:
    manifest = Artifact.load(BUNDLED / name).manifest
    measured = measure_accuracy(BUNDLED / name, manifest.dataset, manifest.preprocessing)["top1"]
    assert measured == pytest.approx(manifest.accuracy["top1"], abs=2e-4)
    assert measured >= LEAST.get(name, 0.85 if name in RESIDUAL_OR_DENSE else 0.78)


@pytest.mark.parametrize(
    ("architecture", "file", "published"),
    [
        ("resnet20", "resnet20-12fca82f.th", 0.9173),
        ("resnet32", "resnet32-d509ac18.th", 0.9263),
        ("resnet56", "resnet56-4bfd9763.th", 0.9339),
    ],
)
@torch.no_grad()
def test_public_checkpoints_reach_their_published_accuracy(
    shared: Path, architecture: str, file: str, published: float
) -> None:
    net = find_architecture(architecture).build().eval()
    net.load_state_dict(load_weights(shared / "weights" / file))
    test = load_data("cifar10").test
    correct = 0
    for start in range(0, 10_000, 500):
        images = torch.from_numpy(test.images[start : start + 500].transpose(0, 3, 1, 2).copy()).float() / 255
        answers = net((images - IMAGENET_MEAN) / IMAGENET_STD).argmax(1).numpy()
        correct += int((answers == test.labels[start : start + 500]).sum())
    assert correct / 10_000 == pytest.approx(published, abs=2e-4)  # rounding differs between CPUs


def test_squeezenet_classifies_imagenet_samples(shared: Path) -> None:
    artifact = Artifact.load(BUNDLED / "squeezenet1_1-imagenet")
    engine = load_engine(artifact.image_model, 2)
    files = sorted((shared / "images" / "imagenet_200").glob("*.*"))
    decoder, correct = Decoder(artifact.manifest.preprocessing), 0
    for file in files:
        row = decoder.decode(file.read_bytes())
        correct += int(engine.run(row[np.newaxis]).argmax() == int(file.name.split("_")[0]))
    assert len(files) == 200
    assert correct / len(files) >= 0.56


def test_bundled_temperature_is_fitted_on_the_validation_set() -> None:
    artifact = Artifact.load(BUNDLED / "lenet5-mnist")
    assert fit_calibration(artifact)["temperature"] == pytest.approx(
        artifact.manifest.calibration["temperature"], rel=1e-3
    )
