"""Networks of timm and torchvision, which are replaced by small modules with the same interface: they are not installed here."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from convoy.errors import ArtifactError
from models.compile.description import Description, imagenet_labels
from models.importing.from_hubs import find_hub_model


class Classifier(nn.Sequential):
    def __init__(self, classes: int = 1000) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, classes))
        self.num_classes = classes
        self.pretrained_cfg = {"tag": "a1_in1k", "license": "apache-2.0"}


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """Replaces timm. Returns a list that records the requested networks, and whether with weights."""
    requested = []

    def create_model(name: str, pretrained: bool) -> nn.Module:
        requested.append((name, pretrained))
        if name == "nothing":
            raise RuntimeError("Unknown model (nothing)\nmore")
        return Classifier()

    package, data = ModuleType("timm"), ModuleType("timm.data")
    known = {"input_size": (3, 224, 224), "crop_pct": 0.95, "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    functions: dict[ModuleType, dict[str, Callable[..., Any]]] = {
        package: {"create_model": create_model},
        data: {"resolve_model_data_config": lambda net: known | {"interpolation": "bicubic"}},
    }
    for module, members in functions.items():
        for name, function in members.items():
            setattr(module, name, function)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return requested


@pytest.fixture
def torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    transforms = SimpleNamespace(resize_size=[232], crop_size=[224], mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6])
    default = SimpleNamespace(transforms=lambda: transforms, meta={"categories": [str(n) for n in range(1000)]})
    package = ModuleType("torchvision")
    models = SimpleNamespace(
        get_model_weights=lambda name: SimpleNamespace(DEFAULT=default), get_model=lambda name, weights: Classifier()
    )
    package.models = models  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision", package)


def test_timm_networks_come_with_labels_and_preprocessing(timm: list[tuple[str, bool]]) -> None:
    model = find_hub_model("timm", "resnet18.a1_in1k", None)
    assert timm == [("resnet18.a1_in1k", True)]
    steps = model.steps(Description())
    assert (steps.resize, steps.size, steps.mean) == (235, 224, (0.1, 0.2, 0.3))
    assert model.steps(Description(resize=256)).resize == 256
    assert model.known.labels == imagenet_labels()
    assert model.licence == "apache-2.0"
    assert "bicubic" in model.warning


@pytest.mark.usefixtures("timm")
def test_the_users_own_weights_come_without_labels(tmp_path: Path) -> None:
    weights = Classifier().state_dict() | {"2.bias": torch.full((1000,), 7.0)}
    torch.save(weights, tmp_path / "w.pth")
    model = find_hub_model("timm", "resnet18", tmp_path / "w.pth")
    assert model.known.labels is None
    assert torch.equal(model.net.state_dict()["2.bias"], weights["2.bias"])
    torch.save(Classifier(3).state_dict(), tmp_path / "w.pth")
    with pytest.raises(ArtifactError, match="does not fit"):
        find_hub_model("timm", "resnet18", tmp_path / "w.pth")


@pytest.mark.usefixtures("torchvision")
def test_torchvision_networks_come_with_labels_and_preprocessing() -> None:
    model = find_hub_model("torchvision", "resnet50", None)
    assert model.steps(Description()).resize == 232
    assert model.known.labels is not None
    assert model.known.labels[7] == "7"


@pytest.mark.usefixtures("timm")
def test_an_unknown_network_is_refused_with_the_reason() -> None:
    with pytest.raises(ArtifactError, match=r"Unknown model \(nothing\)\); without a network"):
        find_hub_model("timm", "nothing", None)


def test_a_missing_package_is_refused_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ArtifactError, match=r"convoy-serve\[hubs\]"):
        find_hub_model("timm", "resnet18", None)
