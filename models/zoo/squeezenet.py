"""SqueezeNet: Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters", arXiv 1602.07360.

1.1 is the authors' later form with 2.4 times fewer operations. Keys are those of the public checkpoints.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["SqueezeNet", "squeezenet1_0", "squeezenet1_1"]


class Fire(nn.Module):
    """A squeeze of 1x1 filters, then an expansion of 1x1 and 3x3 filters side by side."""

    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.expand1x1(x)), F.relu(self.expand3x3(x))], 1)


class SqueezeNet(nn.Module):
    """Input [n, 3, 224, 224], output [n, classes]; the classifier is a convolution and an average."""

    def __init__(self, features: nn.Sequential, classes: int) -> None:
        super().__init__()
        self.features = features
        self.classifier = nn.Sequential(nn.Dropout(0.5), nn.Conv2d(512, classes, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x))
        return logits.flatten(1)


def _pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, 2, ceil_mode=True)


def squeezenet1_0(classes: int = 1000) -> SqueezeNet:
    """SqueezeNet 1.0: 1.25 M parameters, 0.82 G MACs."""
    features = nn.Sequential(
        nn.Conv2d(3, 96, 7, 2), nn.ReLU(), _pool(),
        Fire(96, 16, 64), Fire(128, 16, 64), Fire(128, 32, 128), _pool(),
        Fire(256, 32, 128), Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), _pool(),
        Fire(512, 64, 256),
    )  # fmt: skip
    return SqueezeNet(features, classes)


def squeezenet1_1(classes: int = 1000) -> SqueezeNet:
    """SqueezeNet 1.1: 1.24 M parameters, 0.35 G MACs."""
    features = nn.Sequential(
        nn.Conv2d(3, 64, 3, 2), nn.ReLU(), _pool(),
        Fire(64, 16, 64), Fire(128, 16, 64), _pool(),
        Fire(128, 32, 128), Fire(256, 32, 128), _pool(),
        Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256),
    )  # fmt: skip
    return SqueezeNet(features, classes)
