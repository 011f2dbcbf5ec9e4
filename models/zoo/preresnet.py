"""Pre-activation ResNet: He, Zhang, Ren, Sun, "Identity Mappings in Deep Residual Networks", arXiv 1603.05027, ECCV 2016.

BN and ReLU precede each convolution and nothing follows the addition, so a signal can pass every unit unchanged.
ImageNet variants follow the authors' fb.resnet.torch, CIFAR variants their resnet-1k-layers.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from models.zoo.architecture import CIFAR, Family
from models.zoo.resnet import Residual, ShortcutA

__all__ = ["ARCHITECTURES", "PreActivationResNet", "PreUnit", "conv", "norm_relu", "preresnet_cifar"]


class PreUnit(Residual):
    """x + branch(pre(x)). A projection shortcut takes the activated input, pre(x), as in the authors' code."""

    def __init__(self, pre: nn.Module, branch: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.pre = pre
        self.branch = branch
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        activated = self.pre(x)
        passed = x if self.shortcut is None else self.shortcut(activated if self.projects else x)
        return self.join(passed, self.branch, activated)

    @property
    def projects(self) -> bool:
        return isinstance(self.shortcut, nn.Conv2d)


def norm_relu(maps: int) -> nn.Sequential:
    """Batch normalization and ReLU of `maps` channels, the pre-activation of He et al. 2016."""
    return nn.Sequential(nn.BatchNorm2d(maps), nn.ReLU())


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the size, divided by `stride`."""
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


def basic_unit(inputs: int, outputs: int, stride: int) -> PreUnit:
    """Two 3x3 convolutions; a shortcut to more channels pads with zeros (option A)."""
    branch = nn.Sequential(conv(inputs, outputs, 3, stride), norm_relu(outputs), conv(outputs, outputs, 3))
    return PreUnit(norm_relu(inputs), branch, None if inputs == outputs else ShortcutA(outputs - inputs))


def bottleneck_unit(inputs: int, width: int, stride: int, *, stride_first: bool, activate: bool = True) -> PreUnit:
    """1x1 to `width`, 3x3, 1x1 to four times the width; the stride is on the 3x3 or, for CIFAR, on the first 1x1."""
    outputs = 4 * width
    strides = (stride, 1) if stride_first else (1, stride)
    branch = nn.Sequential(
        conv(inputs, width, 1, strides[0]), norm_relu(width),
        conv(width, width, 3, strides[1]), norm_relu(width),
        conv(width, outputs, 1),
    )  # fmt: skip
    projection = None if inputs == outputs else conv(inputs, outputs, 1, stride)
    return PreUnit(norm_relu(inputs) if activate else nn.Identity(), branch, projection)


class PreActivationResNet(nn.Module):
    """Stem, units, a final BN and ReLU, average pooling, linear layer. Output [n, classes]."""

    def __init__(self, stem: nn.Module, units: list[PreUnit], maps: int, classes: int) -> None:
        super().__init__()
        self.stem = stem
        self.units = nn.Sequential(*units)
        self.norm = norm_relu(maps)
        self.linear = nn.Linear(maps, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.norm(self.units(self.stem(x))).mean((2, 3)))
        return logits


def _imagenet(depths: tuple[int, int, int, int], classes: int) -> PreActivationResNet:
    stem = nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3, bias=False), norm_relu(64), nn.MaxPool2d(3, 2, 1))
    maps, units = 64, list[PreUnit]()
    for width, depth in zip((64, 128, 256, 512), depths, strict=True):
        for unit in range(depth):
            stride = 2 if unit == 0 and width > 64 else 1
            units.append(bottleneck_unit(maps, width, stride, stride_first=False, activate=bool(units)))
            maps = 4 * width
    return PreActivationResNet(stem, units, maps, classes)


def _cifar(
    unit: Callable[[int, int, int], PreUnit], outputs: tuple[int, int, int], depth: int, classes: int
) -> PreActivationResNet:
    maps, units = 16, list[PreUnit]()
    for stage, stage_outputs in enumerate(outputs):
        for number in range(depth):
            units.append(unit(maps, stage_outputs, 2 if number == 0 and stage > 0 else 1))
            maps = stage_outputs
    return PreActivationResNet(conv(3, 16, 3), units, maps, classes)


def _cifar_bottleneck(inputs: int, outputs: int, stride: int) -> PreUnit:
    return bottleneck_unit(inputs, outputs // 4, stride, stride_first=True)


def preresnet50(classes: int = 1000) -> PreActivationResNet:
    """25.5 M parameters, 4.1 G MACs."""
    return _imagenet((3, 4, 6, 3), classes)


def preresnet101(classes: int = 1000) -> PreActivationResNet:
    """44.5 M parameters, 7.8 G MACs."""
    return _imagenet((3, 4, 23, 3), classes)


def preresnet152(classes: int = 1000) -> PreActivationResNet:
    """60.2 M parameters, 11.5 G MACs."""
    return _imagenet((3, 8, 36, 3), classes)


def preresnet200(classes: int = 1000) -> PreActivationResNet:
    """64.7 M parameters, 15.0 G MACs."""
    return _imagenet((3, 24, 36, 3), classes)


def preresnet110(classes: int = 10) -> PreActivationResNet:
    """6n+2 layers of basic units for CIFAR: 1.7 M parameters."""
    return _cifar(basic_unit, (16, 32, 64), 18, classes)


def preresnet164(classes: int = 10) -> PreActivationResNet:
    """9n+2 layers of bottlenecks for CIFAR: 1.7 M parameters."""
    return _cifar(_cifar_bottleneck, (64, 128, 256), 18, classes)


def preresnet_cifar(classes: int = 10) -> PreActivationResNet:
    """Two basic units in each of three stages of 24, 48 and 96 maps, after a stem with pooling: 16 M MACs."""
    stem = nn.Sequential(conv(3, 24, 3), nn.MaxPool2d(2))
    shapes = ((24, 24, 1), (24, 24, 1), (24, 48, 2), (48, 48, 1), (48, 96, 2), (96, 96, 1))
    return PreActivationResNet(stem, [basic_unit(*shape) for shape in shapes], 96, classes)


_FAMILY = Family("Pre-activation ResNet", "arXiv 1603.05027", 2016)
ARCHITECTURES = (
    _FAMILY.member(preresnet50),
    _FAMILY.member(preresnet101),
    _FAMILY.member(preresnet152, top1=78.9, by="paper, table 5, 320 pixels"),
    _FAMILY.member(preresnet200, top1=78.34, by="fb.resnet.torch, 1 crop"),
    _FAMILY.member(preresnet110, CIFAR, 93.63, "paper, table 3, CIFAR-10"),
    _FAMILY.member(preresnet164, CIFAR, 94.54, "paper, table 4, CIFAR-10"),
    _FAMILY.member(preresnet_cifar, CIFAR),
)
