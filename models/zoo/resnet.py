"""ResNet: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", arXiv 1512.03385, CVPR 2016.

v1 follows the paper. v1.5, which torchvision's checkpoints use, moves a bottleneck's stride from the first 1x1 convolution to the
3x3. State-dict keys match torchvision's checkpoints; those of the CIFAR networks match Y. Idelbayev's pytorch_resnet_cifar10.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.zoo.architecture import CIFAR, Family

__all__ = [
    "ARCHITECTURES",
    "BasicBlock",
    "Bottleneck",
    "CifarResNet",
    "ResNet",
    "Residual",
    "ShortcutA",
    "imagenet_resnet",
    "resnet20",
    "resnet110",
    "resnet152_v1",
]

Stride = Literal["1x1", "3x3"]


class Residual(nn.Module):
    """A shortcut plus a branch. `survival` is the probability that the branch is active in training (stochastic depth)."""

    survival: float = 1.0

    def join(self, shortcut: Tensor, branch: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Adds the branch to the shortcut. In training, one random draw per block and batch may skip the branch.

        In inference the branch is scaled by its survival probability (Huang et al., equation 5).
        """
        if self.survival < 1:
            if not self.training:
                return shortcut + self.survival * branch(x)
            if torch.rand(()).item() >= self.survival:
                return shortcut
        return shortcut + branch(x)


class ShortcutA(nn.Module):
    """Option A of the paper: subsamples every second pixel and pads the new channels with zeros, half on each side.

    It has no parameters.
    """

    def __init__(self, new_maps: int) -> None:
        super().__init__()
        self.side = new_maps // 2

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.side, self.side))


def projection(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Option B of the paper: a 1x1 convolution with batch norm."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class BasicBlock(Residual):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, downsample: nn.Module | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = downsample or nn.Identity()

    def branch(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return y

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.join(self.downsample(x), self.branch, x))


class Bottleneck(Residual):
    """1x1 down to `width`, 3x3, 1x1 up to `outputs`, and a shortcut. With `groups` > 1 it is the block of ResNeXt."""

    def __init__(
        self, inputs: int, width: int, outputs: int, stride: int, groups: int = 1, stride_on: Stride = "3x3"
    ) -> None:
        super().__init__()
        first, second = (stride, 1) if stride_on == "1x1" else (1, stride)
        self.conv1 = nn.Conv2d(inputs, width, 1, first, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, second, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = projection(inputs, outputs, stride) if inputs != outputs else nn.Identity()

    def branch(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        widened: Tensor = self.bn3(self.conv3(y))
        return widened

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.join(self.downsample(x), self.branch, x))


class ResNet(nn.Module):
    """Input [n, 3, 224, 224], output [n, classes]; stages 2 to 4 halve the height and width."""

    def __init__(self, stages: list[nn.Sequential], maps: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.fc = nn.Linear(maps, classes)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


class CifarResNet(nn.Module):
    """6n+2 layers in three stages of 16, 32 and 64 channels. Input [n, 3, 32, 32], output [n, classes]."""

    def __init__(self, blocks: int, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _cifar_stage(16, 16, blocks, 1)
        self.layer2 = _cifar_stage(16, 32, blocks, 2)
        self.layer3 = _cifar_stage(32, 64, blocks, 2)
        self.linear = nn.Linear(64, classes)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


def _initialise(net: nn.Module) -> None:
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _cifar_stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    shortcut = ShortcutA(outputs - inputs) if outputs != inputs else None
    first = BasicBlock(inputs, outputs, stride, shortcut)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)))


def _basic_resnet(depths: tuple[int, ...], classes: int) -> ResNet:
    maps, stages = 64, list[nn.Sequential]()
    for width, depth in zip((64, 128, 256, 512), depths, strict=True):
        shortcut = projection(maps, width, 2) if width != maps else None
        first = BasicBlock(maps, width, 2 if shortcut else 1, shortcut)
        stages.append(nn.Sequential(first, *(BasicBlock(width, width, 1) for _ in range(depth - 1))))
        maps = width
    return ResNet(stages, maps, classes)


def imagenet_resnet(
    depths: tuple[int, ...], classes: int, groups: int = 1, base_width: int = 64, stride_on: Stride = "3x3"
) -> ResNet:
    """A ResNet of bottlenecks. The 3x3 ones have `groups` groups of `base_width` channels, doubled in each later stage."""
    maps, stages = 64, list[nn.Sequential]()
    for planes, depth in zip((64, 128, 256, 512), depths, strict=True):
        width, outputs, stride = planes * base_width // 64 * groups, 4 * planes, 1 if planes == 64 else 2
        first = Bottleneck(maps, width, outputs, stride, groups, stride_on)
        rest = (Bottleneck(outputs, width, outputs, 1, groups) for _ in range(depth - 1))
        stages.append(nn.Sequential(first, *rest))
        maps = outputs
    return ResNet(stages, maps, classes)


def resnet18(classes: int = 1000) -> ResNet:
    """11.7 M parameters, 1.8 G MACs."""
    return _basic_resnet((2, 2, 2, 2), classes)


def resnet34(classes: int = 1000) -> ResNet:
    """21.8 M parameters, 3.7 G MACs."""
    return _basic_resnet((3, 4, 6, 3), classes)


def resnet50(classes: int = 1000) -> ResNet:
    """v1.5: 25.6 M parameters, 4.1 G MACs."""
    return imagenet_resnet((3, 4, 6, 3), classes)


def resnet101(classes: int = 1000) -> ResNet:
    """v1.5: 44.5 M parameters, 7.8 G MACs."""
    return imagenet_resnet((3, 4, 23, 3), classes)


def resnet152(classes: int = 1000) -> ResNet:
    """v1.5: 60.2 M parameters, 11.5 G MACs."""
    return imagenet_resnet((3, 8, 36, 3), classes)


def resnet50_v1(classes: int = 1000) -> ResNet:
    """v1, as in the paper: 3.9 G MACs."""
    return imagenet_resnet((3, 4, 6, 3), classes, stride_on="1x1")


def resnet101_v1(classes: int = 1000) -> ResNet:
    """v1, as in the paper: 7.6 G MACs."""
    return imagenet_resnet((3, 4, 23, 3), classes, stride_on="1x1")


def resnet152_v1(classes: int = 1000) -> ResNet:
    """v1, as in the paper: 11.3 G MACs."""
    return imagenet_resnet((3, 8, 36, 3), classes, stride_on="1x1")


def resnet20(classes: int = 10) -> CifarResNet:
    """ResNet-20: 0.27 M parameters."""
    return CifarResNet(3, classes)


def resnet32(classes: int = 10) -> CifarResNet:
    """ResNet-32: 0.46 M parameters."""
    return CifarResNet(5, classes)


def resnet44(classes: int = 10) -> CifarResNet:
    """ResNet-44: 0.66 M parameters."""
    return CifarResNet(7, classes)


def resnet56(classes: int = 10) -> CifarResNet:
    """ResNet-56: 0.85 M parameters."""
    return CifarResNet(9, classes)


def resnet110(classes: int = 10) -> CifarResNet:
    """ResNet-110: 1.7 M parameters."""
    return CifarResNet(18, classes)


_FAMILY = Family("ResNet", "arXiv 1512.03385", 2015)
_CAFFE = "K. He's Caffe models, 1 crop"
_PAPER = "paper, table 6, CIFAR-10"
ARCHITECTURES = (
    _FAMILY.member(resnet18, top1=69.758),
    _FAMILY.member(resnet34, top1=73.314),
    _FAMILY.member(resnet50, top1=76.130),
    _FAMILY.member(resnet101, top1=77.374),
    _FAMILY.member(resnet152, top1=78.312),
    _FAMILY.member(resnet50_v1, top1=75.3, by=_CAFFE),
    _FAMILY.member(resnet101_v1, top1=76.4, by=_CAFFE),
    _FAMILY.member(resnet152_v1, top1=77.0, by=_CAFFE),
    _FAMILY.member(resnet20, CIFAR, 91.25, _PAPER),
    _FAMILY.member(resnet32, CIFAR, 92.49, _PAPER),
    _FAMILY.member(resnet44, CIFAR, 92.83, _PAPER),
    _FAMILY.member(resnet56, CIFAR, 93.03, _PAPER),
    _FAMILY.member(resnet110, CIFAR, 93.57, _PAPER),
)
