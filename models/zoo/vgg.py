"""VGG: Simonyan, Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", arXiv 1409.1556, ICLR 2015.

All convolutions are 3x3; each pool halves the height and width, and most double the channels. State-dict keys match torchvision's
checkpoints. The variants with batch norm are torchvision's, not the paper's.
"""

from __future__ import annotations

from torch import nn

from models.zoo.architecture import CIFAR, Family
from models.zoo.layers import PlainNet, hidden_classifier

__all__ = ["ARCHITECTURES", "VGG"]

WIDTHS = (64, 128, 256, 512, 512)
# Convolutions in each of the five stages (table 1 of the paper, columns A, B, D and E).
DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def stages(depths: tuple[int, ...], widths: tuple[int, ...], norm: bool) -> nn.Sequential:
    """Five stages of 3x3 convolutions, each followed by a 2x2 max pool."""
    channels, layers = 3, list[nn.Module]()
    for depth, width in zip(depths, widths, strict=True):
        for _ in range(depth):
            layers += [nn.Conv2d(channels, width, 3, padding=1), *([nn.BatchNorm2d(width)] if norm else []), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


class VGG(PlainNet):
    """Input [n, 3, 224, 224] (or 32 for CIFAR), output [n, classes]."""


def _vgg(layers: int, norm: bool, classes: int) -> VGG:
    return VGG(stages(DEPTHS[layers], WIDTHS, norm), hidden_classifier(512 * 7 * 7, 4096, classes))


def vgg11(classes: int = 1000) -> VGG:
    """Configuration A: 132.9 M parameters, 7.6 G MACs."""
    return _vgg(11, False, classes)


def vgg11_bn(classes: int = 1000) -> VGG:
    """Configuration A with batch norm."""
    return _vgg(11, True, classes)


def vgg13(classes: int = 1000) -> VGG:
    """Configuration B: 133.0 M parameters, 11.3 G MACs."""
    return _vgg(13, False, classes)


def vgg13_bn(classes: int = 1000) -> VGG:
    """Configuration B with batch norm."""
    return _vgg(13, True, classes)


def vgg16(classes: int = 1000) -> VGG:
    """Configuration D, known as VGG-16: 138.4 M parameters, 15.5 G MACs."""
    return _vgg(16, False, classes)


def vgg16_bn(classes: int = 1000) -> VGG:
    """Configuration D with batch norm."""
    return _vgg(16, True, classes)


def vgg19(classes: int = 1000) -> VGG:
    """Configuration E, known as VGG-19: 143.7 M parameters, 19.6 G MACs."""
    return _vgg(19, False, classes)


def vgg19_bn(classes: int = 1000) -> VGG:
    """Configuration E with batch norm."""
    return _vgg(19, True, classes)


def vgg_cifar(classes: int = 10) -> VGG:
    """VGG-11 for 32x32 images, a quarter as wide, with batch norm and a single linear layer: 10 M MACs."""
    widths = (16, 32, 64, 128, 128)
    return VGG(stages(DEPTHS[11], widths, norm=True), nn.Linear(128, classes))


_FAMILY = Family("VGG", "arXiv 1409.1556", 2014)
ARCHITECTURES = (
    _FAMILY.member(vgg11, top1=69.020),
    _FAMILY.member(vgg11_bn, top1=70.370),
    _FAMILY.member(vgg13, top1=69.928),
    _FAMILY.member(vgg13_bn, top1=71.586),
    _FAMILY.member(vgg16, top1=71.592),
    _FAMILY.member(vgg16_bn, top1=73.360),
    _FAMILY.member(vgg19, top1=72.376),
    _FAMILY.member(vgg19_bn, top1=74.218),
    _FAMILY.member(vgg_cifar, CIFAR),
)
