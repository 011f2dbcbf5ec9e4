"""Recipes: everything that a training run depends on."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

from convoy.errors import NotFound

Loss = Literal["cross_entropy", "map"]


@dataclass(frozen=True)
class Recipe:
    """SGD with Nesterov momentum; the rate rises over `warm_up` of the run and falls by a cosine.

    Augmentation: a crop from the image padded by `shift` on every side and, if `flip`, a mirror image half the time.
    The first `early_epochs` see only windows of `early_side` pixels, unpadded: a net that ends in global pooling learns
    its filters from them at the cost of their area, and the remaining epochs teach it whole images.
    """

    name: str
    architecture: str
    dataset: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pad: int
    epochs: int
    batch: int
    peak_rate: float
    weight_decay: float
    shift: int
    flip: bool
    loss: Loss = "cross_entropy"
    warm_up: float = 0.2
    early_epochs: int = 0
    early_side: int = 0
    seed: int = 0


# LeNet-5 saw background at -0.1 and ink at 1.175: x/255 * 1.275 - 0.1.
LENET_STD = 1 / 1.275
LENET_MEAN = 0.1 / 1.275

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="lenet5-mnist", architecture="lenet5", dataset="mnist", mean=(LENET_MEAN,), std=(LENET_STD,), pad=2,
            epochs=20, batch=64, peak_rate=0.003, weight_decay=0.0, shift=2, flip=False, loss="map",
        ),
        Recipe(
            name="resnet20-cifar10", architecture="resnet20", dataset="cifar10",
            mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616), pad=0,
            epochs=30, batch=128, peak_rate=0.3, weight_decay=5e-4, shift=4, flip=True, early_epochs=20, early_side=24,
        ),
    )
}  # fmt: skip


def find_recipe(name: str) -> Recipe:
    """Raises NotFound that names the nearest known recipe."""
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=1)
        raise NotFound(
            f"unknown recipe {name!r}; " + (f"did you mean {near[0]!r}?" if near else f"known: {', '.join(RECIPES)}")
        )
    return RECIPES[name]
