"""DenseNet: layers, widths and the names of weights."""

from __future__ import annotations

import torch

from models.architectures.counts import trace
from models.architectures.survey import build_without_numbers
from models.zoo.densenet import DenseLayer, densenet161
from models.zoo.registry import find_architecture


def test_a_layer_appends_its_growth_to_its_input() -> None:
    x = torch.randn(2, 6, 4, 4)
    y = DenseLayer(6, 3, bottleneck=True)(x)
    assert y.shape == (2, 9, 4, 4)
    assert torch.equal(y[:, :6], x)


def test_blocks_end_with_the_widths_of_the_paper() -> None:
    operations = trace(build_without_numbers(find_architecture("densenet161")), (3, 224, 224)).operations
    joined = [operation.output for operation in operations if operation.kind == "concat"]
    ends = [shape[0] for shape, after in zip(joined, [*joined[1:], (0, 0, 0)], strict=True) if after[1] != shape[1]]
    assert ends == [384, 768, 2112, 2208]


def test_weights_have_their_public_names() -> None:
    with torch.device("meta"):
        keys = densenet161().state_dict()
    assert "features.denseblock4.denselayer24.conv2.weight" in keys
    assert "features.norm5.running_mean" in keys
