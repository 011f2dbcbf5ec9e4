"""Blocks that several families share."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["PlainNet", "hidden_classifier", "initialise", "normed_conv"]


class PlainNet(nn.Module):
    """Convolutional features, flattened, then a classifier: the structure of AlexNet, ZFNet and VGG."""

    def __init__(self, features: nn.Sequential, classifier: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.classifier = classifier
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).flatten(1))
        return logits


def hidden_classifier(inputs: int, hidden: int, classes: int) -> nn.Sequential:
    """Two hidden layers, each followed by dropout, as in AlexNet and VGG: most of their parameters."""
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(hidden, classes),
    )  # fmt: skip


def normed_conv(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """Size-preserving convolution, batch norm and ReLU, for CIFAR variants of older networks, which then need fewer epochs."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


def initialise(net: nn.Module) -> None:
    """He's normal initialisation by fan-out for convolutions (arXiv 1502.01852), N(0, 0.01) for linear layers' weights."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.01)
