"""What is known of an architecture without building it: its family and paper, its input, what others reported for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

GREY_32 = (1, 32, 32)
CIFAR = (3, 32, 32)
IMAGENET = (3, 224, 224)


@dataclass(frozen=True)
class Published:
    """Top-1 accuracy (0..1) that others reported, and who and how."""

    top1: float
    by: str


@dataclass(frozen=True)
class Architecture:
    """A network of the lecture: its builder, the input [channels, height, width] it takes, and a published accuracy."""

    name: str
    family: str
    paper: str
    year: int
    build: Callable[..., nn.Module]  # takes the number of classes, if it can be another
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
