"""Wide ResNet: Zagoruyko, Komodakis, "Wide Residual Networks", arXiv 1605.07146, BMVC 2016.

WRN-d-k has d layers in pre-activation units, with k times as many channels as ResNet: width instead of depth. The ImageNet
variants are ResNets with 3x3 convolutions twice as wide; their state-dict keys match torchvision's checkpoints.
"""

from __future__ import annotations

from torch import nn

from models.zoo.architecture import CIFAR, Family
from models.zoo.preresnet import PreActivationResNet, PreUnit, conv, norm_relu
from models.zoo.resnet import ResNet, imagenet_resnet

__all__ = ["ARCHITECTURES", "wrn"]


def wide_unit(inputs: int, outputs: int, stride: int, dropout: float) -> PreUnit:
    """Two 3x3 convolutions with dropout between them; a 1x1 convolution where the number of maps changes."""
    branch = nn.Sequential(
        conv(inputs, outputs, 3, stride), norm_relu(outputs),
        *([nn.Dropout(dropout)] if dropout else []), conv(outputs, outputs, 3),
    )  # fmt: skip
    return PreUnit(norm_relu(inputs), branch, conv(inputs, outputs, 1, stride) if inputs != outputs else None)


def wide_stages(maps: int, widths: tuple[int, int, int], depth: int, dropout: float = 0.0) -> list[PreUnit]:
    """Three groups of `depth` units; the second and third halve the pixels."""
    units: list[PreUnit] = []
    for group, width in enumerate(widths):
        for number in range(depth):
            units.append(wide_unit(maps, width, 2 if group and not number else 1, dropout))
            maps = width
    return units


def wrn(layers: int, factor: int, classes: int = 10, dropout: float = 0.3) -> PreActivationResNet:
    """WRN-`layers`-`factor` for 32x32 images; layers = 6n + 4."""
    widths = (16 * factor, 32 * factor, 64 * factor)
    units = wide_stages(16, widths, (layers - 4) // 6, dropout)
    return PreActivationResNet(conv(3, 16, 3), units, widths[-1], classes)


def wrn16_8(classes: int = 10) -> PreActivationResNet:
    """11.0 M parameters, 1.5 G MACs."""
    return wrn(16, 8, classes)


def wrn28_10(classes: int = 10) -> PreActivationResNet:
    """36.5 M parameters, 5.2 G MACs."""
    return wrn(28, 10, classes)


def wrn40_4(classes: int = 10) -> PreActivationResNet:
    """8.9 M parameters, 1.3 G MACs."""
    return wrn(40, 4, classes)


def wide_resnet50_2(classes: int = 1000) -> ResNet:
    """68.9 M parameters, 11.4 G MACs."""
    return imagenet_resnet((3, 4, 6, 3), classes, base_width=128)


def wide_resnet101_2(classes: int = 1000) -> ResNet:
    """torchvision's network, not in the paper: 126.9 M parameters, 22.8 G MACs."""
    return imagenet_resnet((3, 4, 23, 3), classes, base_width=128)


def wide_resnet_cifar(classes: int = 10) -> PreActivationResNet:
    """WRN-10 of 40, 80 and 160 maps after a stem with pooling: 18 M MACs."""
    stem = nn.Sequential(conv(3, 24, 3), nn.MaxPool2d(2))
    return PreActivationResNet(stem, wide_stages(24, (40, 80, 160), depth=1), 160, classes)


_FAMILY = Family("Wide ResNet", "arXiv 1605.07146", 2016)
_README = "authors, CIFAR-10"
ARCHITECTURES = (
    _FAMILY.member(wrn16_8, CIFAR, 95.73, _README),
    _FAMILY.member(wrn28_10, CIFAR, 96.00, _README),
    _FAMILY.member(wrn40_4, CIFAR, 95.47, _README),
    _FAMILY.member(wide_resnet50_2, top1=78.468),
    _FAMILY.member(wide_resnet101_2, top1=78.848),
    _FAMILY.member(wide_resnet_cifar, CIFAR),
)
