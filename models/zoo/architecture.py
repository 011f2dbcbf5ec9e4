"""Properties of an architecture that are known without building it: family, paper, input, published accuracy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

GREY_32 = (1, 32, 32)
CIFAR = (3, 32, 32)
IMAGENET = (3, 224, 224)


@dataclass(frozen=True)
class Published:
    """A published top-1 accuracy (0..1) and its source."""

    top1: float
    by: str


@dataclass(frozen=True)
class Architecture:
    """A network: its builder, its input [channels, height, width], and a published accuracy."""

    name: str
    family: str
    paper: str
    year: int
    build: Callable[..., nn.Module]  # takes the number of classes, unless it is fixed
    input: tuple[int, int, int]
    published: Published | None


@dataclass(frozen=True)
class Family:
    """The networks of one paper."""

    name: str
    paper: str
    year: int

    def member(
        self,
        build: Callable[..., nn.Module],
        input: tuple[int, int, int] = IMAGENET,
        top1: float | None = None,
        by: str = "torchvision IMAGENET1K_V1",
    ) -> Architecture:
        """A network named after its builder; `top1` in percent, as papers print it."""
        published = None if top1 is None else Published(round(top1 / 100, 6), by)
        return Architecture(build.__name__, self.name, self.paper, self.year, build, input, published)
