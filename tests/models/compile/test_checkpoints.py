"""Reading checkpoints of every format and layout, and the list of public weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from convoy.errors import ArtifactError
from models.architectures.survey import build_without_numbers
from models.compile.checkpoints import adapt, load_into, load_weights
from models.compile.public_weights import PUBLIC, find_public
from models.zoo.registry import ARCHITECTURES
from models.zoo.squeezenet import squeezenet_cifar


def test_all_file_formats_load_the_same_weights(tmp_path: Path) -> None:
    weights = squeezenet_cifar().state_dict()
    save_file(weights, tmp_path / "a.safetensors")
    torch.save(weights, tmp_path / "b.pth")
    torch.save({"state_dict": {f"module.{key}": tensor for key, tensor in weights.items()}}, tmp_path / "c.th")
    for file in ("a.safetensors", "b.pth", "c.th"):
        net = squeezenet_cifar()
        load_into(net, load_weights(tmp_path / file), file)
        for key, tensor in net.state_dict().items():
            assert torch.equal(tensor, weights[key])


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save(print, tmp_path / "bad.pth")
    with pytest.raises(ArtifactError, match="holds no weights"):
        load_weights(tmp_path / "bad.pth")


def test_tensors_that_do_not_fit_are_listed() -> None:
    net = nn.Sequential(nn.Linear(2, 3))
    with pytest.raises(
        ArtifactError, match=r"0\.bias is missing; 0\.weight is \[3, 4\] instead of \[3, 2\]; x is unknown"
    ):
        load_into(net, {"0.weight": torch.zeros(3, 4), "x": torch.zeros(1)}, "file")


def test_other_layouts_are_converted_to_ours() -> None:
    tensor = torch.zeros(1)
    keys = adapt(
        {
            "features.denseblock1.denselayer1.norm.1.weight": tensor,
            "pre_logits.fc1.weight": torch.zeros(4, 2, 7, 7),
            "head.fc.bias": tensor,
            "aux1.fc1.bias": tensor,
        }
    )
    assert list(keys) == ["features.denseblock1.denselayer1.norm1.weight", "classifier.0.weight", "classifier.6.bias"]
    assert keys["classifier.0.weight"].shape == (4, 98)


def test_half_precision_is_converted_to_fp32() -> None:
    net = nn.Linear(2, 3)
    load_into(net, {"weight": torch.ones(3, 2).half(), "bias": torch.ones(3).half()}, "file")
    assert net.weight.dtype == torch.float32


def test_public_weights_have_a_known_architecture_and_a_published_accuracy() -> None:
    assert all(weights.architecture in ARCHITECTURES and 0.5 < weights.top1 < 0.9 for weights in PUBLIC.values())
    assert all(len(weights.sha256) == 8 for weights in PUBLIC.values())
    assert find_public("resnet50").url.endswith("/resnet50-0676ba61.pth")
    later = find_public("resnet50-imagenet-v2")
    assert (later.file, later.preprocessing.resize, later.top1) == ("resnet50-11ad3fa6.pth", 232, 0.80858)


@pytest.mark.parametrize("name", ["vgg16", "vgg19"])
def test_vgg_checkpoints_of_timm_fit_our_layout(shared: Path, name: str) -> None:
    dump = json.loads((shared / "reference" / "state_dicts" / f"timm_{name}.json").read_text())
    theirs = {key: torch.empty(shape, device="meta") for key, shape in dump.items()}
    ours = build_without_numbers(ARCHITECTURES[name]).state_dict()
    assert {key: tensor.shape for key, tensor in adapt(theirs).items()} == {
        key: tensor.shape for key, tensor in ours.items()
    }


# Every classifier of the zoo's families for which torchvision 0.29.1 publishes weights.
TORCHVISION = {
    "alexnet", "vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn", "googlenet", "resnet18",
    "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2", "wide_resnet101_2", "resnext50_32x4d",
    "resnext101_32x8d", "resnext101_64x4d", "densenet121", "densenet161", "densenet169", "densenet201", "squeezenet1_0",
    "squeezenet1_1",
}  # fmt: skip


def test_public_weights_cover_torchvision() -> None:
    assert {weights.architecture for weights in PUBLIC.values()} == TORCHVISION
