"""ZFNet: Zeiler, Fergus, "Visualizing and Understanding Convolutional Networks", arXiv 1311.2901, ECCV 2014.

AlexNet in one tower, with first filters of 7x7 at stride 2, since visualisations showed artefacts of 11x11 at stride 4.
"""

from __future__ import annotations

from torch import nn

from models.zoo.alexnet import ResponseNorm
from models.zoo.architecture import CIFAR, Family
from models.zoo.layers import PlainNet, hidden_classifier, normed_conv

__all__ = ["ARCHITECTURES", "ZFNet"]


class ZFNet(PlainNet):
    """Output [n, classes]."""


def _pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, 2, ceil_mode=True)


def _zfnet(widths: tuple[int, int, int], classes: int) -> ZFNet:
    """224-110-55-26-13-6 pixels; the contrast norm follows the pool."""
    third, fourth, fifth = widths
    features = nn.Sequential(
        nn.Conv2d(3, 96, 7, 2, padding=1), nn.ReLU(), _pool(), ResponseNorm(),
        nn.Conv2d(96, 256, 5, 2), nn.ReLU(), _pool(), ResponseNorm(),
        nn.Conv2d(256, third, 3, padding=1), nn.ReLU(),
        nn.Conv2d(third, fourth, 3, padding=1), nn.ReLU(),
        nn.Conv2d(fourth, fifth, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
    )  # fmt: skip
    return ZFNet(features, hidden_classifier(fifth * 6 * 6, 4096, classes))


def zfnet(classes: int = 1000) -> ZFNet:
    """The network of figure 3: 62.4 M parameters, 1.17 G MACs."""
    return _zfnet((384, 384, 256), classes)


def zfnet_wide(classes: int = 1000) -> ZFNet:
    """Variant (b), with wider conv3 to conv5: 107.6 M parameters, 2.48 G MACs."""
    return _zfnet((512, 1024, 512), classes)


def zfnet_cifar(classes: int = 10) -> ZFNet:
    """For 32x32 images: 3x3 first filters instead of the 5x5 of `alexnet_cifar`, batch norm, one hidden layer; 18 M MACs."""
    features = nn.Sequential(
        normed_conv(3, 32, 3), nn.MaxPool2d(3, 2, 1),
        normed_conv(32, 64, 3), nn.MaxPool2d(3, 2, 1),
        normed_conv(64, 96, 3), normed_conv(96, 96, 3), normed_conv(96, 64, 3), nn.MaxPool2d(3, 2, 1),
        nn.AdaptiveAvgPool2d(2),
    )  # fmt: skip
    classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(64 * 2 * 2, 256), nn.ReLU(), nn.Linear(256, classes))
    return ZFNet(features, classifier)


_FAMILY = Family("ZFNet", "arXiv 1311.2901", 2013)
ARCHITECTURES = (
    _FAMILY.member(zfnet, top1=61.6, by="paper, 1 convnet, validation"),
    _FAMILY.member(zfnet_wide, top1=62.5, by="paper, 1 convnet (b), validation"),
    _FAMILY.member(zfnet_cifar, CIFAR),
)
