"""SqueezeNet: Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters", arXiv 1602.07360.

1.1 is the authors' later version with 2.4 times fewer operations. Simple bypass adds a module's input to its output if both have
the same number of maps; complex bypass also adds it if they differ, through a 1x1 convolution. State-dict keys match
torchvision's checkpoints.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.zoo.architecture import CIFAR, Family

__all__ = ["ARCHITECTURES", "Fire", "SqueezeNet"]

Bypass = Literal["none", "simple", "complex"]


class Fire(nn.Module):
    """A squeeze of 1x1 filters, then an expansion of 1x1 and 3x3 filters side by side."""

    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.expand1x1(x)), F.relu(self.expand3x3(x))], 1)


class NormedFire(nn.Module):
    """A `Fire` module with batch norm before each ReLU."""

    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1, bias=False)
        self.squeeze_norm = nn.BatchNorm2d(squeeze)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1, bias=False)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1, bias=False)
        self.expand_norm = nn.BatchNorm2d(2 * expand)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze_norm(self.squeeze(x)))
        return F.relu(self.expand_norm(torch.cat([self.expand1x1(x), self.expand3x3(x)], 1)))


class Bypassed(nn.Module):
    """y = module(x) + shortcut(x)."""

    def __init__(self, module: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.module(x) + self.shortcut(x)
        return total


class SqueezeNet(nn.Module):
    """Output [n, classes]. The classifier is a convolution, a ReLU, so that logits are never negative, and an average."""

    def __init__(self, features: nn.Sequential, classes: int) -> None:
        super().__init__()
        self.features = features
        self.classifier = nn.Sequential(nn.Dropout(0.5), nn.Conv2d(512, classes, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        initialise(self)
        nn.init.normal_(self.classifier.get_submodule("1").get_parameter("weight"), 0, 0.01)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x))
        return logits.flatten(1)


class CifarSqueezeNet(nn.Sequential):
    """Fire modules with batch norm and simple bypass, without a ReLU before the logits. Input [n, 3, 32, 32]."""

    def __init__(self, classes: int) -> None:
        super().__init__(
            nn.Conv2d(3, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
            NormedFire(32, 16, 32), Bypassed(NormedFire(64, 16, 32), nn.Identity()), nn.MaxPool2d(2),
            NormedFire(64, 32, 64), Bypassed(NormedFire(128, 32, 64), nn.Identity()), nn.MaxPool2d(2),
            NormedFire(128, 48, 96), Bypassed(NormedFire(192, 48, 96), nn.Identity()),
            NormedFire(192, 64, 128), Bypassed(NormedFire(256, 64, 128), nn.Identity()),
            nn.Conv2d(256, classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip
        initialise(self)


def initialise(net: nn.Module) -> None:
    """He's uniform initialisation of every convolution, biases 0."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, 2, ceil_mode=True)


def _fire(inputs: int, squeeze: int, expand: int, bypass: Bypass) -> nn.Module:
    fire = Fire(inputs, squeeze, expand)
    if bypass != "none" and inputs == 2 * expand:
        return Bypassed(fire, nn.Identity())
    if bypass == "complex":
        return Bypassed(fire, nn.Conv2d(inputs, 2 * expand, 1))
    return fire


def _squeezenet1_0(bypass: Bypass, classes: int) -> SqueezeNet:
    features = nn.Sequential(
        nn.Conv2d(3, 96, 7, 2), nn.ReLU(), _pool(),
        _fire(96, 16, 64, bypass), _fire(128, 16, 64, bypass), _fire(128, 32, 128, bypass), _pool(),
        _fire(256, 32, 128, bypass), _fire(256, 48, 192, bypass), _fire(384, 48, 192, bypass),
        _fire(384, 64, 256, bypass), _pool(),
        _fire(512, 64, 256, bypass),
    )  # fmt: skip
    return SqueezeNet(features, classes)


def squeezenet1_0(classes: int = 1000) -> SqueezeNet:
    """SqueezeNet 1.0: 1.25 M parameters, 0.82 G MACs."""
    return _squeezenet1_0("none", classes)


def squeezenet1_0_simple_bypass(classes: int = 1000) -> SqueezeNet:
    """SqueezeNet 1.0 with simple bypass, around fire 3, 5, 7 and 9."""
    return _squeezenet1_0("simple", classes)


def squeezenet1_0_complex_bypass(classes: int = 1000) -> SqueezeNet:
    """SqueezeNet 1.0 with complex bypass: also 1x1 convolutions around fire 2, 4, 6 and 8; 1.59 M parameters, 1.17 G MACs."""
    return _squeezenet1_0("complex", classes)


def squeezenet1_1(classes: int = 1000) -> SqueezeNet:
    """SqueezeNet 1.1: 1.24 M parameters, 0.35 G MACs."""
    features = nn.Sequential(
        nn.Conv2d(3, 64, 3, 2), nn.ReLU(), _pool(),
        Fire(64, 16, 64), Fire(128, 16, 64), _pool(),
        Fire(128, 32, 128), Fire(256, 32, 128), _pool(),
        Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256),
    )  # fmt: skip
    return SqueezeNet(features, classes)


def squeezenet_cifar(classes: int = 10) -> CifarSqueezeNet:
    """SqueezeNet 1.1 for 32x32 images, half as wide: 12 M MACs."""
    return CifarSqueezeNet(classes)


_FAMILY = Family("SqueezeNet", "arXiv 1602.07360", 2016)
ARCHITECTURES = (
    _FAMILY.member(squeezenet1_0, top1=58.092),
    _FAMILY.member(squeezenet1_1, top1=58.178),
    _FAMILY.member(squeezenet1_0_simple_bypass, top1=60.4, by="paper, validation"),
    _FAMILY.member(squeezenet1_0_complex_bypass, top1=58.8, by="paper, validation"),
    _FAMILY.member(squeezenet_cifar, CIFAR),
)
