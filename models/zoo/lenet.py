"""LeNet-5: LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document Recognition", Proc. IEEE 86(11), 1998."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from models.zoo.architecture import GREY_32, Family

__all__ = ["ARCHITECTURES", "LeNet5", "lenet5", "lenet5_modern"]

# Table I of the paper: the S2 maps (of six) that are inputs of each of the sixteen C3 maps.
C3_INPUTS = (
    (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5),
    (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5), (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)  # fmt: skip

# Targets of F6, 7 wide and 12 high, similar to the paper's figure 3: similar characters have similar codes.
BITMAPS = (
    ".......|..###..|.##.##.|##...##|##...##|##...##|##...##|##...##|##...##|.##.##.|..###..|.......",
    ".......|...##..|..###..|.####..|...##..|...##..|...##..|...##..|...##..|...##..|.######|.......",
    ".......|.#####.|##...##|##...##|.....##|....##.|...##..|..##...|.##....|##.....|#######|.......",
    ".......|#######|.....##|....##.|...##..|..####.|.....##|.....##|.....##|##...##|.#####.|.......",
    ".......|.....#.|....##.|...###.|..####.|.##.##.|##..##.|#######|....##.|....##.|....##.|.......",
    ".......|#######|##.....|##.....|######.|##...##|.....##|.....##|.....##|##...##|.#####.|.......",
    ".......|..####.|.##....|##.....|##.....|######.|##...##|##...##|##...##|.##.##.|..###..|.......",
    ".......|#######|##...##|.....##|....##.|....##.|...##..|...##..|..##...|..##...|..##...|.......",
    ".......|.#####.|##...##|##...##|.##.##.|..###..|.##.##.|##...##|##...##|##...##|.#####.|.......",
    ".......|..###..|.##.##.|##...##|##...##|##...##|.######|.....##|.....##|....##.|.####..|.......",
)


class ScaledTanh(nn.Module):
    """f(a) = 1.7159 tanh(2a/3), so that f(±1) = ±1."""

    def forward(self, x: Tensor) -> Tensor:
        return 1.7159 * torch.tanh(x * (2 / 3))


class Subsampling(nn.Module):
    """The SUM (not the mean) of 2x2 inputs, times a trainable coefficient, plus a trainable bias, one pair per map."""

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(maps))
        self.bias = nn.Parameter(torch.zeros(maps))
        self.pool = nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        means: Tensor = self.pool(x)
        return 4 * means * self.weight[:, None, None] + self.bias[:, None, None]


class PartialConv(nn.Module):
    """C3: each map is a 5x5 convolution of a subset of the six S2 maps."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.ModuleList(nn.Conv2d(len(inputs), 1, 5) for inputs in C3_INPUTS)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([conv(x[:, list(inputs)]) for conv, inputs in zip(self.maps, C3_INPUTS, strict=True)], dim=1)

    def dense(self) -> nn.Conv2d:
        """The same map as one convolution with zeros where there is no connection, which engines run faster."""
        full = nn.Conv2d(6, len(C3_INPUTS), 5)
        with torch.no_grad():
            full.weight.zero_()
            for number, inputs in enumerate(C3_INPUTS):
                conv = self.maps[number]
                assert isinstance(conv, nn.Conv2d)
                assert conv.bias is not None
                assert full.bias is not None
                full.weight[number, list(inputs)] = conv.weight[0]
                full.bias[number] = conv.bias[0]
        return full


class RadialBasis(nn.Module):
    """Minus the squared distance of F6 to each class's fixed bitmap of ±1, halved: the most likely class is the largest."""

    codes: Tensor

    def __init__(self) -> None:
        super().__init__()
        pixels = [[1.0 if pixel == "#" else -1.0 for pixel in code.replace("|", "")] for code in BITMAPS]
        self.register_buffer("codes", torch.tensor(pixels))

    def forward(self, x: Tensor) -> Tensor:
        # -|x - c|²/2 = x·c - |c|²/2 - |x|²/2 ; written as a product, which engines run fastest
        return x @ self.codes.T - 0.5 * (self.codes.square().sum(1) + x.square().sum(1, keepdim=True))


class LeNet5(nn.Module):
    """Input [n, 1, 32, 32], output [n, 10]; 60 000 trainable parameters as in the paper."""

    def __init__(self) -> None:
        super().__init__()
        self.c1: nn.Module = nn.Conv2d(1, 6, 5)
        self.s2 = Subsampling(6)
        self.c3: nn.Module = PartialConv()
        self.s4 = Subsampling(16)
        self.c5 = nn.Conv2d(16, 120, 5)
        self.f6 = nn.Linear(120, 84)
        self.output = RadialBasis()
        self.squash = ScaledTanh()
        self._initialise()

    def _initialise(self) -> None:
        """U(-2.4/F, 2.4/F), F the fan-in of a unit (paper, appendix A)."""
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                bound = 2.4 / module.weight[0].numel()
                nn.init.uniform_(module.weight, -bound, bound)
                assert module.bias is not None
                nn.init.zeros_(module.bias)
            elif isinstance(module, Subsampling):
                nn.init.uniform_(module.weight, 0.1, 0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squash(self.s2(self.squash(self.c1(x))))
        x = self.squash(self.s4(self.squash(self.c3(x))))
        x = self.squash(self.c5(x)).flatten(1)
        logits: Tensor = self.output(self.squash(self.f6(x)))
        return logits

    def for_export(self) -> LeNet5:
        """A copy with the partial convolution as a dense one; the function is the same."""
        copy = deepcopy(self)
        if isinstance(copy.c3, PartialConv):
            copy.c3 = copy.c3.dense()
        return copy


def lenet5() -> LeNet5:
    """LeNet-5 of 1998."""
    return LeNet5()


def lenet5_modern(classes: int = 10) -> nn.Sequential:
    """The common modern variant of LeNet-5: full C3, plain pools, ReLU, a linear output; 61 706 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, classes),
    )  # fmt: skip


_FAMILY = Family("LeNet", "Proc. IEEE 86(11)", 1998)
ARCHITECTURES = (
    _FAMILY.member(lenet5, GREY_32, 99.05, "paper, MNIST"),
    _FAMILY.member(lenet5_modern, GREY_32),
)
