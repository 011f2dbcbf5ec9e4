"""DenseNet: Huang, Liu, van der Maaten, Weinberger, "Densely Connected Convolutional Networks", arXiv 1608.06993, CVPR 2017.

Every layer takes the maps of all earlier layers of its block and adds `growth` new ones. B: a 1x1 bottleneck before
each 3x3; C: transitions that halve the maps. State-dict keys of the ImageNet networks match torchvision's checkpoints.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.zoo.architecture import CIFAR, Family

__all__ = ["ARCHITECTURES", "DenseNet"]


class DenseLayer(nn.Module):
    """BN-ReLU-3x3, after BN-ReLU-1x1 to four times the growth if `bottleneck`; the output joins the input."""

    def __init__(self, inputs: int, growth: int, bottleneck: bool) -> None:
        super().__init__()
        width = 4 * growth if bottleneck else growth
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, width, 1 if bottleneck else 3, padding=0 if bottleneck else 1, bias=False)
        if bottleneck:
            self.norm2 = nn.BatchNorm2d(width)
            self.conv2 = nn.Conv2d(width, growth, 3, padding=1, bias=False)
        self.bottleneck = bottleneck

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.relu(self.norm1(x)))
        if self.bottleneck:
            y = self.conv2(F.relu(self.norm2(y)))
        return torch.cat([x, y], 1)


class Transition(nn.Sequential):
    """BN-ReLU-1x1, then 2x2 average pooling."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.relu = nn.ReLU()
        self.conv = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.pool = nn.AvgPool2d(2)


class DenseNet(nn.Module):
    """Dense blocks of `depths` layers with transitions between them. Output [n, classes]."""

    def __init__(
        self, stem: nn.Sequential, maps: int, growth: int, depths: tuple[int, ...], classes: int,
        bottleneck: bool = True, compression: float = 0.5,
    ) -> None:  # fmt: skip
        super().__init__()
        self.features = stem
        for block, depth in enumerate(depths, 1):
            layers = OrderedDict[str, nn.Module]()
            for layer in range(1, depth + 1):
                layers[f"denselayer{layer}"] = DenseLayer(maps, growth, bottleneck)
                maps += growth
            self.features.add_module(f"denseblock{block}", nn.Sequential(layers))
            if block < len(depths):
                self.features.add_module(f"transition{block}", Transition(maps, int(maps * compression)))
                maps = int(maps * compression)
        self.features.add_module(f"norm{len(depths) + 1}", nn.BatchNorm2d(maps))
        self.classifier = nn.Linear(maps, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(F.relu(self.features(x)).mean((2, 3)))
        return logits


def imagenet_stem(maps: int) -> nn.Sequential:
    """7x7/2 and a 3x3/2 max pool: 224 to 56 pixels."""
    return nn.Sequential(
        OrderedDict(
            conv0=nn.Conv2d(3, maps, 7, 2, 3, bias=False), norm0=nn.BatchNorm2d(maps), relu0=nn.ReLU(),
            pool0=nn.MaxPool2d(3, 2, 1),
        )
    )  # fmt: skip


def cifar_stem(maps: int) -> nn.Sequential:
    """One 3x3 convolution."""
    return nn.Sequential(OrderedDict(conv0=nn.Conv2d(3, maps, 3, padding=1, bias=False)))


def densenet121(classes: int = 1000) -> DenseNet:
    """8.0 M parameters, 2.8 G MACs."""
    return DenseNet(imagenet_stem(64), 64, 32, (6, 12, 24, 16), classes)


def densenet161(classes: int = 1000) -> DenseNet:
    """The wide variant (growth 48): 28.7 M parameters, 7.7 G MACs."""
    return DenseNet(imagenet_stem(96), 96, 48, (6, 12, 36, 24), classes)


def densenet169(classes: int = 1000) -> DenseNet:
    """14.1 M parameters, 3.4 G MACs."""
    return DenseNet(imagenet_stem(64), 64, 32, (6, 12, 32, 32), classes)


def densenet201(classes: int = 1000) -> DenseNet:
    """20.0 M parameters, 4.3 G MACs."""
    return DenseNet(imagenet_stem(64), 64, 32, (6, 12, 48, 32), classes)


def densenet264(classes: int = 1000) -> DenseNet:
    """33.3 M parameters, 5.8 G MACs."""
    return DenseNet(imagenet_stem(64), 64, 32, (6, 12, 64, 48), classes)


def _densenet_bc(layers: int, growth: int, classes: int) -> DenseNet:
    """L counts convolutions: three blocks of (L - 4) / 6 layers of two each."""
    return DenseNet(cifar_stem(2 * growth), 2 * growth, growth, ((layers - 4) // 6,) * 3, classes)


def _densenet_plain(layers: int, growth: int, classes: int) -> DenseNet:
    """Without bottleneck and compression: three blocks of (L - 4) / 3 layers, 16 maps before them."""
    depths = ((layers - 4) // 3,) * 3
    return DenseNet(cifar_stem(16), 16, growth, depths, classes, bottleneck=False, compression=1.0)


def densenet40_12(classes: int = 10) -> DenseNet:
    """L=40, k=12: 1.0 M parameters, 0.26 G MACs."""
    return _densenet_plain(40, 12, classes)


def densenet100_12(classes: int = 10) -> DenseNet:
    """L=100, k=12: 7.0 M parameters, 1.8 G MACs."""
    return _densenet_plain(100, 12, classes)


def densenet100_24(classes: int = 10) -> DenseNet:
    """L=100, k=24: 27.2 M parameters, 6.9 G MACs."""
    return _densenet_plain(100, 24, classes)


def densenet_bc100_12(classes: int = 10) -> DenseNet:
    """BC, L=100, k=12: 0.77 M parameters, 0.29 G MACs."""
    return _densenet_bc(100, 12, classes)


def densenet_bc250_24(classes: int = 10) -> DenseNet:
    """BC, L=250, k=24: 15.3 M parameters, 5.4 G MACs."""
    return _densenet_bc(250, 24, classes)


def densenet_bc190_40(classes: int = 10) -> DenseNet:
    """BC, L=190, k=40: 25.6 M parameters, 9.3 G MACs."""
    return _densenet_bc(190, 40, classes)


def densenet_cifar(classes: int = 10) -> DenseNet:
    """A shallow BC form for 32x32 images that pools before its first block: 12 M MACs."""
    stem = cifar_stem(24)
    stem.add_module("pool0", nn.MaxPool2d(2))
    return DenseNet(stem, 24, 12, (4, 6, 8), classes)


_FAMILY = Family("DenseNet", "arXiv 1608.06993", 2016)
_README = "authors, CIFAR-10, augmented"
ARCHITECTURES = (
    _FAMILY.member(densenet121, top1=74.434),
    _FAMILY.member(densenet169, top1=75.600),
    _FAMILY.member(densenet201, top1=76.896),
    _FAMILY.member(densenet161, top1=77.138),
    _FAMILY.member(densenet264, top1=77.85, by="paper, table 3, 1 crop"),
    _FAMILY.member(densenet40_12, CIFAR, 94.76, _README),
    _FAMILY.member(densenet100_12, CIFAR, 95.90, _README),
    _FAMILY.member(densenet100_24, CIFAR, 96.26, _README),
    _FAMILY.member(densenet_bc100_12, CIFAR, 95.49, _README),
    _FAMILY.member(densenet_bc250_24, CIFAR, 96.38, _README),
    _FAMILY.member(densenet_bc190_40, CIFAR, 96.54, _README),
    _FAMILY.member(densenet_cifar, CIFAR),
)
