"""Sides of the feature maps in every network, as published."""

from __future__ import annotations

import pytest

from models.architectures.counts import trace
from models.architectures.survey import build_without_numbers
from models.zoo.registry import ARCHITECTURES, find_architecture

MAPS = 3  # dimensions: [channels, height, width]

HALVED_TO_SEVEN = [112, 56, 28, 14, 7]  # 7x7 at stride 2, then a pool, then four stages
THREE_STAGES = [32, 16, 8]
BY_FAMILY = {
    "ZFNet": [110, 55, 26, 13, 6],
    "AlexNet": [55, 27, 13, 6],
    "VGG": [224, 112, 56, 28, 14, 7],
    "FractalNet": [32, 16, 8, 4, 2],
}
BY_NAME = {
    "lenet5": [28, 14, 10, 5],
    "lenet5_modern": [28, 14, 10, 5],
    "nin_imagenet": [54, 27, 13, 6],
    "squeezenet1_0": [109, 54, 27, 13],
    "squeezenet1_0_simple_bypass": [109, 54, 27, 13],
    "squeezenet1_0_complex_bypass": [109, 54, 27, 13],
    "squeezenet1_1": [111, 55, 27, 13],
}


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if not name.endswith("_cifar")])
def test_maps_have_the_published_sides(name: str) -> None:
    architecture = find_architecture(name)
    operations = trace(build_without_numbers(architecture), architecture.input).operations
    sides = {
        operation.output[-1]
        for operation in operations
        if len(operation.output) == MAPS and operation.kind.startswith(("conv", "max pool", "a"))
    }
    usual = THREE_STAGES if architecture.input[1] == 32 else HALVED_TO_SEVEN
    expected = BY_NAME.get(name) or BY_FAMILY.get(architecture.family, usual)
    assert sorted(sides - {1}, reverse=True) == expected
