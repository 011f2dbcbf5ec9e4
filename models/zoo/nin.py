"""Network in Network: Lin, Chen, Yan, arXiv 1312.4400, ICLR 2014.

Each convolution is followed by 1x1 convolutions, which act as a small perceptron at every pixel. The last convolution has one
channel per class, and global average pooling gives the logits. Widths follow the authors' Caffe definitions.
"""

from __future__ import annotations

from torch import Tensor, nn

from models.zoo.architecture import CIFAR, Family
from models.zoo.layers import normed_conv

__all__ = ["ARCHITECTURES", "NetworkInNetwork"]


def mlpconv(inputs: int, widths: tuple[int, int, int], kernel: int, stride: int = 1, padding: int = 0) -> nn.Sequential:
    """A convolution and two 1x1 convolutions, each with its ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, widths[0], kernel, stride, padding), nn.ReLU(),
        nn.Conv2d(widths[0], widths[1], 1), nn.ReLU(),
        nn.Conv2d(widths[1], widths[2], 1), nn.ReLU(),
    )  # fmt: skip


def normed_mlpconv(inputs: int, widths: tuple[int, int, int], kernel: int) -> nn.Sequential:
    """As `mlpconv`, at stride 1 and with batch norm, which was published after the paper and cuts the epochs to a tenth."""
    return nn.Sequential(
        normed_conv(inputs, widths[0], kernel),
        normed_conv(widths[0], widths[1], 1),
        normed_conv(widths[1], widths[2], 1),
    )


class NetworkInNetwork(nn.Module):
    """Output [n, classes]: global average pooling of the last convolution's channels."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.features = nn.Sequential(*layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.features(x).mean((2, 3))
        return logits


def _pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, 2, ceil_mode=True)


def nin_cifar10(classes: int = 10) -> NetworkInNetwork:
    """The paper's network for 32x32 images: 0.97 M parameters, 222 M MACs."""
    return NetworkInNetwork(
        mlpconv(3, (192, 160, 96), 5, padding=2), _pool(), nn.Dropout(0.5),
        mlpconv(96, (192, 192, 192), 5, padding=2), _pool(), nn.Dropout(0.5),
        mlpconv(192, (192, 192, classes), 3, padding=1),
    )  # fmt: skip


def nin_imagenet(classes: int = 1000) -> NetworkInNetwork:
    """The ImageNet network of the authors' model zoo: 7.6 M parameters, 1.1 G MACs."""
    return NetworkInNetwork(
        mlpconv(3, (96, 96, 96), 11, stride=4), _pool(),
        mlpconv(96, (256, 256, 256), 5, padding=2), _pool(),
        mlpconv(256, (384, 384, 384), 3, padding=1), _pool(), nn.Dropout(0.5),
        mlpconv(384, (1024, 1024, classes), 3, padding=1),
    )  # fmt: skip


def nin_cifar(classes: int = 10) -> NetworkInNetwork:
    """A quarter of the paper's widths, with batch norm and no ReLU before the logits: 17 M MACs."""
    return NetworkInNetwork(
        normed_mlpconv(3, (48, 40, 24), 5), _pool(),
        normed_mlpconv(24, (48, 48, 48), 5), _pool(),
        normed_mlpconv(48, (48, 48, 48), 3), nn.Conv2d(48, classes, 1),
    )  # fmt: skip


_FAMILY = Family("Network in Network", "arXiv 1312.4400", 2013)
ARCHITECTURES = (
    _FAMILY.member(nin_cifar10, CIFAR, 91.19, "paper, CIFAR-10, augmented"),
    _FAMILY.member(nin_imagenet, top1=59.36, by="authors' Caffe model"),
    _FAMILY.member(nin_cifar, CIFAR),
)
