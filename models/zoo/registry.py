"""Architectures by name, in the order of their papers. An unknown one is answered with the nearest known."""

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
    """Doubled names are refused."""
    known: dict[str, Architecture] = {}
    for one in architectures:
        if one.name in known:
            raise ValueError(f"architecture {one.name!r} is registered twice")
        known[one.name] = one
    return known


ARCHITECTURES = _register(one for family in FAMILIES for one in family.ARCHITECTURES)


def find_architecture(name: str) -> Architecture:
    """Raises NotFound that names the nearest known architecture."""
    if name not in ARCHITECTURES:
        raise unknown("architecture", name, ARCHITECTURES)
    return ARCHITECTURES[name]
