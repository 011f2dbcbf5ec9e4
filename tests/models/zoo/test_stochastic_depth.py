"""Stochastic depth: survival probabilities, training and testing."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from models.zoo.resnet import BasicBlock, Residual
from models.zoo.stochastic_depth import resnet110_stochastic_depth, stochastic_depth_cifar


def survivals(net: nn.Module) -> list[float]:
    return [module.survival for module in net.modules() if isinstance(module, Residual)]


def test_survival_falls_linearly_to_a_half() -> None:
    probabilities = survivals(resnet110_stochastic_depth())
    assert len(probabilities) == 54
    assert probabilities[0] == pytest.approx(0.9907, abs=1e-4)
    assert probabilities[-1] == 0.5
    assert sum(probabilities) == pytest.approx(40.25)


def test_a_dropped_block_passes_its_input_and_does_not_update_its_statistics() -> None:
    block = BasicBlock(4, 4, 1).train()
    block.survival = 0.0
    x = torch.rand(2, 4, 5, 5)
    assert_close(block(x), x)
    assert block.bn1.num_batches_tracked == 0


def test_testing_scales_the_branch_and_training_does_not() -> None:
    block = BasicBlock(4, 4, 1).eval()
    x = torch.rand(2, 4, 5, 5)
    block.survival = 0.25
    assert_close(block(x), torch.relu(x + 0.25 * block.branch(x)))


def test_a_block_is_kept_or_dropped_for_the_whole_batch() -> None:
    torch.manual_seed(0)
    block = BasicBlock(1, 1, 1).train()
    block.survival = 0.5
    x = torch.rand(1000, 1, 3, 3)
    kept = [bool(torch.equal(block(x), x)) for _ in range(40)]
    assert 0 < sum(kept) < 40


def test_the_cifar_variant_rarely_drops_its_first_unit() -> None:
    assert survivals(stochastic_depth_cifar())[0] > 0.96
