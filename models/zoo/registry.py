"""Architectures by name, ordered by year of the paper."""

from __future__ import annotations

from collections.abc import Iterable

from convoy.errors import unknown
from models.zoo import (
    alexnet,
    densenet,
    fractalnet,
    googlenet,
    lenet,
    nin,
    preresnet,
    resnet,
    resnext,
    squeezenet,
    stochastic_depth,
    vgg,
    wide,
    zfnet,
)
from models.zoo.architecture import Architecture

FAMILIES = (
    lenet, alexnet, zfnet, nin, vgg, googlenet, resnet, preresnet, stochastic_depth, squeezenet, wide, fractalnet, densenet,
    resnext,
)  # fmt: skip


def _register(architectures: Iterable[Architecture]) -> dict[str, Architecture]:
    """Raises ValueError for a repeated name."""
    known: dict[str, Architecture] = {}
    for architecture in architectures:
        if architecture.name in known:
            raise ValueError(f"architecture {architecture.name!r} is registered twice")
        known[architecture.name] = architecture
    return known


ARCHITECTURES = _register(architecture for family in FAMILIES for architecture in family.ARCHITECTURES)


def find_architecture(name: str) -> Architecture:
    """The architecture of a name. Raises NotFound with the closest known name."""
    if name not in ARCHITECTURES:
        raise unknown("architecture", name, ARCHITECTURES)
    return ARCHITECTURES[name]
