"""Recipes: all settings of a training run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from convoy.errors import unknown

Loss = Literal["cross_entropy", "map"]


@dataclass(frozen=True)
class Recipe:
    """SGD with Nesterov momentum. The learning rate rises over the share `warm_up` of the run, then follows a cosine down.

    For the last `restart_epochs` it restarts at `restart_rate` (warm restarts, arXiv 1608.03983).

    Augmentation: a crop from the image padded by `shift` on every side and, if `flip`, a mirror image half the time.
    The first `early_epochs` use crops of only `early_side` pixels, without padding: they are faster, and a network with global
    pooling learns its filters from them. The remaining epochs use full images.
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
    restart_epochs: int = 0
    restart_rate: float = 0.0
    early_epochs: int = 0
    early_side: int = 0
    seed: int = 0


# LeNet-5's input has the background at -0.1 and ink at 1.175: x/255 * 1.275 - 0.1.
LENET_STD = 1 / 1.275
LENET_MEAN = 0.1 / 1.275

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2470, 0.2435, 0.2616)


def cifar10(architecture: str, name: str, epochs: int, peak_rate: float, early_epochs: int) -> Recipe:
    """A recipe for CIFAR-10: crops of the image padded by 4, mirror images, weight decay 5e-4."""
    return Recipe(
        name=name, architecture=architecture, dataset="cifar10", mean=CIFAR10_MEAN, std=CIFAR10_STD, pad=0,
        epochs=epochs, batch=128, peak_rate=peak_rate, weight_decay=5e-4, shift=4, flip=True,
        early_epochs=early_epochs, early_side=24 if early_epochs else 0,
    )  # fmt: skip


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="lenet5-mnist", architecture="lenet5", dataset="mnist", mean=(LENET_MEAN,), std=(LENET_STD,), pad=2,
            epochs=20, batch=64, peak_rate=0.003, weight_decay=0.0, shift=2, flip=False, loss="map",
        ),
        replace(
            cifar10("resnet20", "resnet20-cifar10", epochs=38, peak_rate=0.3, early_epochs=20),
            restart_epochs=8, restart_rate=0.1,
        ),
        cifar10("squeezenet_cifar", "squeezenet-cifar10", epochs=10, peak_rate=0.2, early_epochs=7),
        cifar10("vgg_cifar", "vgg-cifar10", epochs=12, peak_rate=0.1, early_epochs=0),
        cifar10("preresnet_cifar", "preresnet-cifar10", epochs=18, peak_rate=0.2, early_epochs=13),
        cifar10("densenet_cifar", "densenet-cifar10", epochs=16, peak_rate=0.2, early_epochs=12),
        cifar10("nin_cifar", "nin-cifar10", epochs=10, peak_rate=0.2, early_epochs=8),
        cifar10("alexnet_cifar", "alexnet-cifar10", epochs=10, peak_rate=0.1, early_epochs=7),
        cifar10("zfnet_cifar", "zfnet-cifar10", epochs=10, peak_rate=0.1, early_epochs=7),
        cifar10("googlenet_cifar", "googlenet-cifar10", epochs=8, peak_rate=0.2, early_epochs=6),
        cifar10("stochastic_depth_cifar", "stochastic-depth-cifar10", epochs=24, peak_rate=0.2, early_epochs=17),
        cifar10("wide_resnet_cifar", "wide-resnet-cifar10", epochs=18, peak_rate=0.2, early_epochs=13),
        cifar10("resnext_cifar", "resnext-cifar10", epochs=16, peak_rate=0.2, early_epochs=12),
        cifar10("fractalnet_cifar", "fractalnet-cifar10", epochs=14, peak_rate=0.1, early_epochs=0),
    )
}  # fmt: skip


def full_budget(recipe: Recipe) -> Recipe:
    """The recipe for a GPU: 200 epochs, as in the papers, with full images from the first one."""
    return with_epochs(replace(recipe, early_epochs=0, early_side=0), 200)


def with_epochs(recipe: Recipe, epochs: int) -> Recipe:
    """The recipe with another number of epochs and a single cycle of the learning rate."""
    return replace(recipe, epochs=epochs, restart_epochs=0, restart_rate=0.0)


def find_recipe(name: str) -> Recipe:
    """The recipe of a name. Raises NotFound with the closest known name."""
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[name]
