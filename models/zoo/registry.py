"""Architectures by name. Doubled names are refused; an unknown one is answered with the nearest known."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from convoy.errors import NotFound
from models.zoo import lenet, resnet, squeezenet


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
    Architecture("resnet20", resnet.resnet20, (3, 32, 32)),
    Architecture("resnet32", resnet.resnet32, (3, 32, 32)),
    Architecture("resnet44", resnet.resnet44, (3, 32, 32)),
    Architecture("resnet56", resnet.resnet56, (3, 32, 32)),
    Architecture("resnet110", resnet.resnet110, (3, 32, 32)),
    Architecture("squeezenet1_0", squeezenet.squeezenet1_0, (3, 224, 224)),
    Architecture("squeezenet1_1", squeezenet.squeezenet1_1, (3, 224, 224)),
)


def find_architecture(name: str) -> Architecture:
    """Raises NotFound that names the nearest known architecture."""
    if name not in ARCHITECTURES:
        near = difflib.get_close_matches(name, ARCHITECTURES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(ARCHITECTURES)}"
        raise NotFound(f"unknown architecture {name!r}; {hint}")
    return ARCHITECTURES[name]
