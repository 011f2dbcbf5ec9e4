"""FractalNet: blocks, joins, drop-path and the deepest column."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from models.architectures.counts import count_params
from models.zoo.fractalnet import FractalBlock, FractalNet, fractalnet20, join


def small(columns: int) -> FractalNet:
    return FractalNet((4, 8), columns, 10, dropouts=(0.0, 0.0))


@pytest.mark.parametrize("columns", [1, 2, 3, 4])
def test_a_block_has_two_to_the_columns_minus_one_convolutions(columns: int) -> None:
    block = FractalBlock(3, 4, columns, 0.0)
    convolutions = [module for module in block.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 2**columns - 1
    assert block(torch.zeros(1, 3, 8, 8)).shape == (1, 4, 8, 8)


def test_two_columns_are_the_mean_of_one_and_of_two_convolutions() -> None:
    block = FractalBlock(3, 4, 2, 0.0).eval()
    x = torch.randn(2, 3, 8, 8)
    assert_close(block(x), (block.run_column(x, 0) + block.run_column(x, 1)) / 2)


def test_a_join_is_the_mean_of_the_surviving_inputs_of_which_there_is_at_least_one() -> None:
    inputs = [torch.full((1,), value) for value in (1.0, 2.0, 6.0)]
    assert join(inputs, 0.0).item() == 3.0
    torch.manual_seed(0)
    assert {join(inputs, 1.0).item() for _ in range(60)} == {1.0, 2.0, 6.0}


def test_global_drop_path_uses_one_column_through_all_blocks() -> None:
    torch.manual_seed(1)
    net = small(2).train()
    reached = set()
    for _ in range(12):
        net.zero_grad()
        net(torch.randn(4, 3, 8, 8)).sum().backward()
        used = tuple(
            block.columns[column][0][0].weight.grad is not None  # type: ignore[index, union-attr]
            for block in net.blocks
            for column in range(2)
        )
        reached.add(used)
    assert {(True, False, True, False), (False, True, False, True), (True, True, True, True)} <= reached


def test_the_deepest_column_can_be_used_alone() -> None:
    net = small(3).eval()
    net.answer = "deepest"
    x = torch.randn(2, 3, 8, 8)
    expected = x
    for block in net.blocks:
        assert isinstance(block, FractalBlock)
        expected = net.pool(block.run_column(expected, 2))
    assert_close(net(x), net.classifier(expected.mean((2, 3))))


def test_the_deepest_column_of_fractalnet20_has_twenty_convolutions() -> None:
    with torch.device("meta"):
        net = fractalnet20()
    deepest = nn.ModuleList(block.get_submodule("columns.2") for block in net.blocks)
    assert sum(isinstance(module, nn.Conv2d) for module in deepest.modules()) == 20
    assert count_params(deepest) + count_params(net.classifier) == 20_410_314
