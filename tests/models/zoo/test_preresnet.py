"""Pre-activation ResNets and wide ResNets: order of operations."""

from __future__ import annotations

import torch
from torch import nn
from torch.testing import assert_close

from models.zoo.preresnet import PreUnit, norm_relu, preresnet50, preresnet_cifar
from models.zoo.wide import wide_unit


def test_the_shortcut_is_an_identity_and_nothing_follows_the_addition() -> None:
    unit = PreUnit(norm_relu(3), nn.Conv2d(3, 3, 1)).eval()
    x = -torch.rand(1, 3, 4, 4)
    assert_close(unit(x), x + unit.branch(unit.pre(x)))
    assert unit(x).min() < 0


def test_a_projection_takes_the_activated_input() -> None:
    unit = wide_unit(3, 5, 2, dropout=0.0).eval()
    x = torch.randn(1, 3, 4, 4)
    assert unit.shortcut is not None
    assert_close(unit(x), unit.shortcut(unit.pre(x)) + unit.branch(unit.pre(x)))


def test_only_the_first_unit_after_the_imagenet_stem_has_no_preactivation() -> None:
    with torch.device("meta"):
        units = preresnet50().units
    assert [isinstance(unit.get_submodule("pre"), nn.Identity) for unit in units] == [True] + [False] * 15


def test_dropout_is_between_the_two_convolutions() -> None:
    kinds = [type(module).__name__ for module in wide_unit(4, 4, 1, dropout=0.3).branch.children()]
    assert kinds == ["Conv2d", "Sequential", "Dropout", "Conv2d"]


def test_the_last_norm_precedes_the_average() -> None:
    net = preresnet_cifar().eval()
    x = torch.randn(2, 3, 32, 32)
    assert_close(net(x), net.linear(net.norm(net.units(net.stem(x))).mean((2, 3))))
