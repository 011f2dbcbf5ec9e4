"""FractalNet: Larsson, Maire, Shakhnarovich, "Ultra-Deep Neural Networks without Residuals", arXiv 1605.07648, ICLR 2017.

f_1 is a convolution; f_{C+1} is f_C twice in sequence, joined with a convolution in parallel. A block of C columns has
2^C - 1 convolutions and is 2^(C-1) deep.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from models.zoo.architecture import CIFAR, Family

__all__ = ["ARCHITECTURES", "FractalBlock", "FractalNet", "join"]

LOCAL_DROP = 0.15
Answer = Literal["whole", "deepest"]


def join(inputs: list[Tensor], drop: float) -> Tensor:
    """The mean of the inputs. Each input is dropped with probability `drop`, but never all of them."""
    if drop:
        alive = [x for x in inputs if torch.rand(()).item() >= drop]
        inputs = alive or [inputs[int(torch.randint(len(inputs), ()))]]
    total = inputs[0]
    for x in inputs[1:]:
        total = total + x
    return total / len(inputs)


class FractalConv(nn.Sequential):
    """3x3 convolution, dropout, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, dropout: float) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1), nn.Dropout(dropout), nn.BatchNorm2d(outputs), nn.ReLU()
        )


class FractalBlock(nn.Module):
    """Column c (from 0) has 2^c convolutions; columns that end at the same depth are joined and continue from the join."""

    def __init__(self, inputs: int, outputs: int, columns: int, dropout: float) -> None:
        super().__init__()
        self.columns = nn.ModuleList(
            nn.ModuleList(FractalConv(inputs if step == 0 else outputs, outputs, dropout) for step in range(2**column))
            for column in range(columns)
        )
        self.depth = int(2 ** (columns - 1))

    def forward(self, x: Tensor, drop: float = 0.0) -> Tensor:
        state = [x] * len(self.columns)
        for step in range(1, self.depth + 1):
            ends = []
            for number, column in enumerate(self.columns):
                assert isinstance(column, nn.ModuleList)
                span = self.depth // len(column)
                if step % span == 0:
                    state[number] = column[step // span - 1](state[number])
                    ends.append(number)
            joined = join([state[number] for number in ends], drop)
            for number in ends:
                state[number] = joined
        return state[-1]

    def run_column(self, x: Tensor, number: int) -> Tensor:
        """Runs a single column."""
        column = self.columns[number]
        assert isinstance(column, nn.ModuleList)
        for conv in column:
            x = conv(x)
        return x


class FractalNet(nn.Module):
    """Blocks with a 2x2 max pool after each. Input [n, 3, 32, 32], output [n, classes].

    In training, half of the batches run a single column through all blocks (global drop-path); the others drop inputs of
    joins (local drop-path). `answer` selects the full network or its deepest column for inference.
    """

    def __init__(
        self, widths: tuple[int, ...], columns: int, classes: int,
        dropouts: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4), answer: Answer = "whole",
    ) -> None:  # fmt: skip
        super().__init__()
        inputs = (3, *widths[:-1])
        self.blocks = nn.ModuleList(
            FractalBlock(before, width, columns, dropout)
            for before, width, dropout in zip(inputs, widths, dropouts, strict=True)
        )
        self.columns = columns
        self.answer = answer
        self.pool = nn.MaxPool2d(2)
        self.classifier = nn.Linear(widths[-1], classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        column = self._column()
        drop = LOCAL_DROP if self.training else 0.0
        for block in self.blocks:
            assert isinstance(block, FractalBlock)
            x = self.pool(block(x, drop) if column is None else block.run_column(x, column))
        logits: Tensor = self.classifier(x.mean((2, 3)))
        return logits

    def _column(self) -> int | None:
        """The column that this forward pass uses; None for all columns."""
        if self.training:
            return int(torch.randint(self.columns, ())) if torch.rand(()).item() < 0.5 else None
        return self.columns - 1 if self.answer == "deepest" else None


def fractalnet20(classes: int = 10) -> FractalNet:
    """Three columns, five blocks, 20 layers deep: 33.7 M parameters, 0.85 G MACs."""
    return FractalNet((64, 128, 256, 512, 512), 3, classes)


def fractalnet40(classes: int = 100) -> FractalNet:
    """Four columns, five blocks, 40 layers deep, for 100 classes: 76.2 M parameters, 2.0 G MACs."""
    return FractalNet((64, 128, 256, 512, 512), 4, classes)


def fractalnet_thin(classes: int = 100) -> FractalNet:
    """The paper's thin network of four columns, for 100 classes: 4.8 M parameters, 0.13 G MACs."""
    return FractalNet((16, 32, 64, 128, 128), 4, classes)


def fractalnet_cifar(classes: int = 10) -> FractalNet:
    """The paper's thin network of two columns, for 10 classes and without dropout: 19 M MACs."""
    return FractalNet((16, 32, 64, 128, 128), 2, classes, dropouts=(0.0,) * 5)


_FAMILY = Family("FractalNet", "arXiv 1605.07648", 2016)
ARCHITECTURES = (
    _FAMILY.member(fractalnet20, CIFAR, 95.40, "paper, CIFAR-10, dropout and drop-path"),
    _FAMILY.member(fractalnet40, CIFAR),
    _FAMILY.member(fractalnet_thin, CIFAR),
    _FAMILY.member(fractalnet_cifar, CIFAR),
)
