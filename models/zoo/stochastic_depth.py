"""Stochastic depth: Huang, Sun, Liu, Sedra, Weinberger, "Deep Networks with Stochastic Depth", arXiv 1603.09382, ECCV 2016.

A training method for residual networks: each branch is dropped at random, so the network is shorter in training than in
inference. In inference each branch is scaled by its survival probability; in training it is not scaled.
"""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from models.zoo.architecture import CIFAR, Family
from models.zoo.preresnet import PreActivationResNet, preresnet_cifar
from models.zoo.resnet import CifarResNet, Residual, ResNet, resnet110, resnet152_v1

__all__ = ["ARCHITECTURES", "with_stochastic_depth"]

Net = TypeVar("Net", bound=nn.Module)


def with_stochastic_depth(net: Net, last: float = 0.5) -> Net:
    """Gives block l of L the survival probability 1 - l/L (1 - last): linear decay, the paper's equation 4."""
    blocks = [module for module in net.modules() if isinstance(module, Residual)]
    for number, block in enumerate(blocks, 1):
        block.survival = 1 - number / len(blocks) * (1 - last)
    return net


def resnet110_stochastic_depth(classes: int = 10) -> CifarResNet:
    """ResNet-110; on average 40 of its 54 blocks are active in training."""
    return with_stochastic_depth(resnet110(classes))


def resnet152_stochastic_depth(classes: int = 1000) -> ResNet:
    """ResNet-152 for ImageNet."""
    return with_stochastic_depth(resnet152_v1(classes))


def stochastic_depth_cifar(classes: int = 10) -> PreActivationResNet:
    """The CIFAR variant of pre-activation ResNet, with survival 0.8 of its last unit: a short network can drop few units."""
    return with_stochastic_depth(preresnet_cifar(classes), last=0.8)


_FAMILY = Family("Stochastic depth", "arXiv 1603.09382", 2016)
ARCHITECTURES = (
    _FAMILY.member(resnet110_stochastic_depth, CIFAR, 94.75, "paper, CIFAR-10"),
    _FAMILY.member(resnet152_stochastic_depth, top1=78.02, by="paper, validation"),
    _FAMILY.member(stochastic_depth_cifar, CIFAR),
)
