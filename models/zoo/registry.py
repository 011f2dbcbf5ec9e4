"""Architectures by name. Doubled names are refused; an unknown one is answered with the nearest known."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from convoy.errors import NotFound
from models.zoo import densenet, lenet, nin, preresnet, resnet, squeezenet, vgg


@dataclass(frozen=True)
class Architecture:
    """A network of the lecture: its builder and the input [channels, height, width] it takes."""

    name: str
    build: Callable[[], nn.Module]
    input: tuple[int, int, int]


def _register(*architectures: Architecture) -> dict[str, Architecture]:
    known: dict[str, Architecture] = {}
    for one in architectures:
        if one.name in known:
            raise ValueError(f"architecture {one.name!r} is registered twice")
        known[one.name] = one
    return known


ARCHITECTURES = _register(
    Architecture("lenet5", lenet.lenet5, (1, 32, 32)),
    Architecture("vgg11", vgg.vgg11, (3, 224, 224)),
    Architecture("vgg11_bn", vgg.vgg11_bn, (3, 224, 224)),
    Architecture("vgg13", vgg.vgg13, (3, 224, 224)),
    Architecture("vgg13_bn", vgg.vgg13_bn, (3, 224, 224)),
    Architecture("vgg16", vgg.vgg16, (3, 224, 224)),
    Architecture("vgg16_bn", vgg.vgg16_bn, (3, 224, 224)),
    Architecture("vgg19", vgg.vgg19, (3, 224, 224)),
    Architecture("vgg19_bn", vgg.vgg19_bn, (3, 224, 224)),
    Architecture("vgg_cifar", vgg.vgg_cifar, (3, 32, 32)),
    Architecture("nin_cifar10", nin.nin_cifar10, (3, 32, 32)),
    Architecture("nin_imagenet", nin.nin_imagenet, (3, 224, 224)),
    Architecture("nin_cifar", nin.nin_cifar, (3, 32, 32)),
    Architecture("resnet20", resnet.resnet20, (3, 32, 32)),
    Architecture("resnet32", resnet.resnet32, (3, 32, 32)),
    Architecture("resnet44", resnet.resnet44, (3, 32, 32)),
    Architecture("resnet56", resnet.resnet56, (3, 32, 32)),
    Architecture("resnet110", resnet.resnet110, (3, 32, 32)),
    Architecture("preresnet50", preresnet.preresnet50, (3, 224, 224)),
    Architecture("preresnet101", preresnet.preresnet101, (3, 224, 224)),
    Architecture("preresnet152", preresnet.preresnet152, (3, 224, 224)),
    Architecture("preresnet200", preresnet.preresnet200, (3, 224, 224)),
    Architecture("preresnet110", preresnet.preresnet110, (3, 32, 32)),
    Architecture("preresnet164", preresnet.preresnet164, (3, 32, 32)),
    Architecture("preresnet_cifar", preresnet.preresnet_cifar, (3, 32, 32)),
    Architecture("densenet121", densenet.densenet121, (3, 224, 224)),
    Architecture("densenet161", densenet.densenet161, (3, 224, 224)),
    Architecture("densenet169", densenet.densenet169, (3, 224, 224)),
    Architecture("densenet201", densenet.densenet201, (3, 224, 224)),
    Architecture("densenet264", densenet.densenet264, (3, 224, 224)),
    Architecture("densenet_cifar", densenet.densenet_cifar, (3, 32, 32)),
    Architecture("squeezenet1_0", squeezenet.squeezenet1_0, (3, 224, 224)),
    Architecture("squeezenet1_0_simple_bypass", squeezenet.squeezenet1_0_simple_bypass, (3, 224, 224)),
    Architecture("squeezenet1_0_complex_bypass", squeezenet.squeezenet1_0_complex_bypass, (3, 224, 224)),
    Architecture("squeezenet1_1", squeezenet.squeezenet1_1, (3, 224, 224)),
    Architecture("squeezenet_cifar", squeezenet.squeezenet_cifar, (3, 32, 32)),
)


def find_architecture(name: str) -> Architecture:
    """Raises NotFound that names the nearest known architecture."""
    if name not in ARCHITECTURES:
        near = difflib.get_close_matches(name, ARCHITECTURES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(ARCHITECTURES)}"
        raise NotFound(f"unknown architecture {name!r}; {hint}")
    return ARCHITECTURES[name]
