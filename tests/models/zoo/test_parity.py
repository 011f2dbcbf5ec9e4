"""ONNX graphs of architectures compared with torch, with random weights."""

from __future__ import annotations

import pytest

from models.compile.export import TOLERANCE
from models.zoo.parity import measure
from models.zoo.registry import find_architecture

QUICK = {"alexnet_cifar"}
SMALL = ("lenet5", "lenet5_modern", "zfnet_cifar", "vgg_cifar", "resnet20", "squeezenet_cifar")

# The exporter raises these warnings itself.
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch.*"),
]


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SMALL)])
def test_graphs_match_torch(name: str) -> None:
    assert measure(find_architecture(name)) <= TOLERANCE
