"""GoogLeNet: Szegedy et al., "Going Deeper with Convolutions", arXiv 1409.4842, CVPR 2015.

Inception modules run 1x1, 3x3 and 5x5 convolutions and a pool side by side, with 1x1 bottlenecks before the expensive ones.
State-dict keys match torchvision's checkpoint. That network has batch norm instead of LRN, and 3x3 instead of 5x5 kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.zoo.alexnet import ResponseNorm
from models.zoo.architecture import CIFAR, Family
from models.zoo.layers import initialise, normed_conv

__all__ = ["ARCHITECTURES", "AUXILIARY_WEIGHT", "GoogLeNet"]

AUXILIARY_WEIGHT = 0.3  # of each auxiliary loss in training

ConvUnit = Callable[..., nn.Module]  # inputs, outputs, kernel, stride=1, padding=0


class Widths(NamedTuple):
    """A row of table 1: maps of each branch; `r` marks the bottleneck before a branch."""

    one: int
    three_r: int
    three: int
    five_r: int
    five: int
    pool: int

    @property
    def total(self) -> int:
        return self.one + self.three + self.five + self.pool


MODULES = {
    "3a": Widths(64, 96, 128, 16, 32, 32),
    "3b": Widths(128, 128, 192, 32, 96, 64),
    "4a": Widths(192, 96, 208, 16, 48, 64),
    "4b": Widths(160, 112, 224, 24, 64, 64),
    "4c": Widths(128, 128, 256, 24, 64, 64),
    "4d": Widths(112, 144, 288, 32, 64, 64),
    "4e": Widths(256, 160, 320, 32, 128, 128),
    "5a": Widths(256, 160, 320, 32, 128, 128),
    "5b": Widths(384, 192, 384, 48, 128, 128),
}


class BiasedConv(nn.Module):
    """Convolution with bias and ReLU, as in the paper."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x))


class NormedConv(nn.Module):
    """Convolution, batch norm and ReLU, as in torchvision's checkpoint."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class Inception(nn.Module):
    """Four branches side by side; `five` is the kernel size of the third branch."""

    def __init__(self, inputs: int, widths: Widths, conv: ConvUnit, five: int) -> None:
        super().__init__()
        self.branch1 = conv(inputs, widths.one, 1)
        self.branch2 = nn.Sequential(
            conv(inputs, widths.three_r, 1), conv(widths.three_r, widths.three, 3, padding=1)
        )  # fmt: skip
        self.branch3 = nn.Sequential(
            conv(inputs, widths.five_r, 1), conv(widths.five_r, widths.five, five, padding=five // 2)
        )  # fmt: skip
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(inputs, widths.pool, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class Auxiliary(nn.Module):
    """An auxiliary classifier on 14x14 maps, which adds gradient to early layers in training."""

    def __init__(self, inputs: int, classes: int, conv: ConvUnit) -> None:
        super().__init__()
        self.conv = conv(inputs, 128, 1)
        self.fc1 = nn.Linear(128 * 4 * 4, 1024)
        self.fc2 = nn.Linear(1024, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(F.avg_pool2d(x, 5, 3)).flatten(1)
        logits: Tensor = self.fc2(F.dropout(F.relu(self.fc1(x)), 0.7, self.training))
        return logits


class GoogLeNet(nn.Module):
    """Input [n, 3, 224, 224], output [n, classes]; auxiliary classifiers run only in `with_auxiliaries`."""

    def __init__(
        self, classes: int, conv: ConvUnit, norm: Callable[[], nn.Module], five: int, last_pool: int,
        dropout: float, auxiliaries: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv1 = conv(3, 64, 7, 2, 3)
        self.norm1 = norm()
        self.conv2 = conv(64, 64, 1)
        self.conv3 = conv(64, 192, 3, padding=1)
        self.norm2 = norm()
        inputs = 192
        for name, widths in MODULES.items():
            self.add_module(f"inception{name}", Inception(inputs, widths, conv, five))
            inputs = widths.total
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.last_pool = nn.MaxPool2d(last_pool, 2, ceil_mode=True)
        self.aux1 = Auxiliary(512, classes, conv) if auxiliaries else None
        self.aux2 = Auxiliary(528, classes, conv) if auxiliaries else None
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(inputs, classes)
        initialise(self)

    def _inception(self, x: Tensor, *names: str) -> Tensor:
        for name in names:
            x = self.get_submodule(f"inception{name}")(x)
        return x

    def _to_4a(self, x: Tensor) -> Tensor:
        x = self.norm1(self.pool(self.conv1(x)))
        x = self.pool(self.norm2(self.conv3(self.conv2(x))))
        return self._inception(self.pool(self._inception(x, "3a", "3b")), "4a")

    def _from_4d(self, x: Tensor) -> Tensor:
        x = self._inception(self.last_pool(self._inception(x, "4e")), "5a", "5b")
        logits: Tensor = self.fc(self.dropout(x.mean((2, 3))))
        return logits

    def forward(self, x: Tensor) -> Tensor:
        return self._from_4d(self._inception(self._to_4a(x), "4b", "4c", "4d"))

    def with_auxiliaries(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of the network and of its two auxiliary classifiers, for losses with the weights 1 and AUXILIARY_WEIGHT."""
        assert self.aux1 is not None
        assert self.aux2 is not None
        at_4a = self._to_4a(x)
        at_4d = self._inception(at_4a, "4b", "4c", "4d")
        return self._from_4d(at_4d), self.aux1(at_4a), self.aux2(at_4d)


def googlenet_paper(classes: int = 1000, auxiliaries: bool = False) -> GoogLeNet:
    """The paper's network: 7.0 M parameters (13.4 M with auxiliaries), 1.58 G MACs."""
    return GoogLeNet(classes, BiasedConv, ResponseNorm, five=5, last_pool=3, dropout=0.4, auxiliaries=auxiliaries)


def googlenet(classes: int = 1000, auxiliaries: bool = False) -> GoogLeNet:
    """torchvision's network: 6.6 M parameters, 1.50 G MACs. Pixels are normalised with mean and standard deviation 0.5."""
    return GoogLeNet(classes, NormedConv, nn.Identity, five=3, last_pool=2, dropout=0.2, auxiliaries=auxiliaries)


def googlenet_cifar(classes: int = 10) -> nn.Sequential:
    """Four modules with batch norm for 32x32 images, after a stem with pooling: 17 M MACs."""
    rows = (Widths(16, 24, 32, 4, 8, 8), Widths(32, 32, 48, 8, 24, 16))
    later = (Widths(48, 32, 64, 8, 32, 32), Widths(64, 48, 96, 12, 32, 32))
    net = nn.Sequential(
        normed_conv(3, 32, 3), nn.MaxPool2d(2),
        Inception(32, rows[0], NormedConv, 5), Inception(rows[0].total, rows[1], NormedConv, 5), nn.MaxPool2d(2),
        Inception(rows[1].total, later[0], NormedConv, 5), Inception(later[0].total, later[1], NormedConv, 5),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(later[1].total, classes),
    )  # fmt: skip
    initialise(net)
    return net


_FAMILY = Family("GoogLeNet", "arXiv 1409.4842", 2014)
ARCHITECTURES = (
    _FAMILY.member(googlenet_paper, top1=68.7, by="BVLC Caffe replica, center crop"),
    _FAMILY.member(googlenet, top1=69.778),
    _FAMILY.member(googlenet_cifar, CIFAR),
)
