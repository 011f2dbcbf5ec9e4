"""Every architecture's ONNX graphs against torch, with random weights."""

from __future__ import annotations

import pytest

from models.export import TOLERANCE
from models.zoo.parity import measure
from models.zoo.registry import ARCHITECTURES, find_architecture

QUICK = {"alexnet_cifar"}

# The exporter's own internals warn of each other.
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch.*"),
]


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ARCHITECTURES]
)
def test_graphs_match_torch(name: str) -> None:
    assert measure(find_architecture(name)) <= TOLERANCE
