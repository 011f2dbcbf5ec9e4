"""ResNeXt: Xie et al., "Aggregated Residual Transformations for Deep Neural Networks", arXiv 1611.05431, CVPR 2017.

The bottleneck of ResNet with its 3x3 convolution in C groups: C paths of width d. `32x4d` is C x d in the first stage; the number
of groups is constant and their width doubles in each stage. State-dict keys match torchvision's checkpoints.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from models.zoo.architecture import CIFAR, Family
from models.zoo.layers import normed_conv
from models.zoo.resnet import Bottleneck, ResNet, imagenet_resnet

__all__ = ["ARCHITECTURES", "resnext29"]


def resnext50_32x4d(classes: int = 1000) -> ResNet:
    """25.0 M parameters, 4.2 G MACs."""
    return imagenet_resnet((3, 4, 6, 3), classes, groups=32, base_width=4)


def resnext101_32x4d(classes: int = 1000) -> ResNet:
    """44.2 M parameters, 8.0 G MACs."""
    return imagenet_resnet((3, 4, 23, 3), classes, groups=32, base_width=4)


def resnext101_32x8d(classes: int = 1000) -> ResNet:
    """torchvision's network, not in the paper: 88.8 M parameters, 16.4 G MACs."""
    return imagenet_resnet((3, 4, 23, 3), classes, groups=32, base_width=8)


def resnext101_64x4d(classes: int = 1000) -> ResNet:
    """83.5 M parameters, 15.5 G MACs."""
    return imagenet_resnet((3, 4, 23, 3), classes, groups=64, base_width=4)


def resnext29(stem: nn.Module, maps: int, groups: int, width: int, outputs: int, classes: int) -> nn.Sequential:
    """Three stages of three blocks for CIFAR. The first has `groups` x `width` inner and `outputs` outer maps."""
    stages = OrderedDict[str, nn.Module](stem=stem)
    for stage in range(3):
        inner, maps_out = groups * width * 2**stage, outputs * 2**stage
        first = Bottleneck(maps, inner, maps_out, 2 if stage else 1, groups)
        rest = (Bottleneck(maps_out, inner, maps_out, 1, groups) for _ in range(2))
        stages[f"layer{stage + 1}"] = nn.Sequential(first, *rest)
        maps = maps_out
    stages |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "fc": nn.Linear(maps, classes)}
    net = nn.Sequential(stages)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net


def resnext29_8x64d(classes: int = 10) -> nn.Sequential:
    """34.4 M parameters, 5.4 G MACs."""
    return resnext29(normed_conv(3, 64, 3), 64, 8, 64, 256, classes)


def resnext29_16x64d(classes: int = 10) -> nn.Sequential:
    """68.2 M parameters, 10.7 G MACs."""
    return resnext29(normed_conv(3, 64, 3), 64, 16, 64, 256, classes)


def resnext_cifar(classes: int = 10) -> nn.Sequential:
    """ResNeXt-29 8x4d after a stem with pooling: 13 M MACs."""
    stem = nn.Sequential(normed_conv(3, 32, 3), nn.MaxPool2d(2))
    return resnext29(stem, 32, 8, 4, 64, classes)


_FAMILY = Family("ResNeXt", "arXiv 1611.05431", 2016)
ARCHITECTURES = (
    _FAMILY.member(resnext50_32x4d, top1=77.618),
    _FAMILY.member(resnext101_32x4d, top1=78.8, by="paper, table 4, validation"),
    _FAMILY.member(resnext101_32x8d, top1=79.312),
    _FAMILY.member(resnext101_64x4d, top1=83.246),
    _FAMILY.member(resnext29_8x64d, CIFAR, 96.35, "paper, table 7, CIFAR-10"),
    _FAMILY.member(resnext29_16x64d, CIFAR, 96.42, "paper, table 7, CIFAR-10"),
    _FAMILY.member(resnext_cifar, CIFAR),
)
