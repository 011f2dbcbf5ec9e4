"""AlexNet: Krizhevsky, Sutskever, Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", NIPS 2012.

The paper's network has two towers, one per GPU, that are connected in conv3 and in the linear layers. The public
checkpoints have the single tower of "One weird trick for parallelizing convolutional neural networks" (arXiv 1404.5997).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.zoo.architecture import CIFAR, Family
from models.zoo.layers import hidden_classifier, initialise, normed_conv

__all__ = ["ARCHITECTURES", "AlexNet", "ResponseNorm"]


class ResponseNorm(nn.Module):
    """b = a / (2 + 1e-4 Σ a²)^0.75 over five neighbouring maps of the same tower; torch divides alpha by five."""

    def __init__(self, towers: int = 1) -> None:
        super().__init__()
        self.towers = towers
        self.norm = nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.norm(tower) for tower in x.chunk(self.towers, 1)], 1)


class AlexNet(nn.Module):
    """Output [n, classes]."""

    def __init__(self, features: nn.Sequential, pool: nn.Module, classifier: nn.Sequential) -> None:
        super().__init__()
        self.features = features
        self.avgpool = pool
        self.classifier = classifier
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.avgpool(self.features(x)).flatten(1))
        return logits


def alexnet_two_towers(classes: int = 1000) -> AlexNet:
    """The paper's network, with its towers as groups: 61.0 M parameters, 0.72 G MACs; 227 pixels give 55-27-13-6."""
    features = nn.Sequential(
        nn.Conv2d(3, 96, 11, 4), nn.ReLU(), ResponseNorm(towers=2), nn.MaxPool2d(3, 2),
        nn.Conv2d(96, 256, 5, padding=2, groups=2), nn.ReLU(), ResponseNorm(towers=2), nn.MaxPool2d(3, 2),
        nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 384, 3, padding=1, groups=2), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1, groups=2), nn.ReLU(), nn.MaxPool2d(3, 2),
    )  # fmt: skip
    return AlexNet(features, nn.Identity(), hidden_classifier(256 * 6 * 6, 4096, classes))


def alexnet(classes: int = 1000) -> AlexNet:
    """The single tower: 61.1 M parameters, 0.71 G MACs. Dropout precedes each hidden layer."""
    features = nn.Sequential(
        nn.Conv2d(3, 64, 11, 4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
    )  # fmt: skip
    classifier = nn.Sequential(
        nn.Dropout(0.5), nn.Linear(256 * 6 * 6, 4096), nn.ReLU(),
        nn.Dropout(0.5), nn.Linear(4096, 4096), nn.ReLU(),
        nn.Linear(4096, classes),
    )  # fmt: skip
    return AlexNet(features, nn.AdaptiveAvgPool2d(6), classifier)


def alexnet_cifar(classes: int = 10) -> AlexNet:
    """The single tower for 32x32 images: 5x5 first filters at stride 1, batch norm, one hidden layer; 18 M MACs."""
    features = nn.Sequential(
        normed_conv(3, 24, 5), nn.MaxPool2d(3, 2, 1),
        normed_conv(24, 48, 5), nn.MaxPool2d(3, 2, 1),
        normed_conv(48, 96, 3), normed_conv(96, 64, 3), normed_conv(64, 64, 3), nn.MaxPool2d(3, 2, 1),
    )  # fmt: skip
    classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(64 * 2 * 2, 256), nn.ReLU(), nn.Linear(256, classes))
    return AlexNet(features, nn.AdaptiveAvgPool2d(2), classifier)


_FAMILY = Family("AlexNet", "NIPS 2012", 2012)
ARCHITECTURES = (
    _FAMILY.member(alexnet_two_towers, (3, 227, 227), 59.3, "paper, 1 CNN, validation, 10 crops"),
    _FAMILY.member(alexnet, top1=56.522),
    _FAMILY.member(alexnet_cifar, CIFAR),
)
