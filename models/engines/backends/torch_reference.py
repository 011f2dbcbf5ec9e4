"""torch as an engine: the reference for exported graphs. It never serves."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from convoy.errors import EngineFailed
from models.artifact import Preprocessing
from models.engines.engine import TensorSpec


class TorchEngine:
    """A network in torch, with the input of one form: uint8 images or float32 tensors."""

    def __init__(self, net: nn.Module, steps: Preprocessing, form: Literal["image", "tensor"]) -> None:
        self._net = net.eval()
        self._steps = steps
        self._image = form == "image"
        side = steps.size + 2 * steps.pad
        planes = TensorSpec("input", np.dtype(np.float32), (-1, steps.channels, side, side))
        image = TensorSpec("image", np.dtype(np.uint8), (-1, steps.size, steps.size, steps.channels))
        self.input = image if self._image else planes
        first = self.run(np.zeros((1, *self.input.shape[1:]), self.input.dtype))
        self.output = TensorSpec("logits", np.dtype(np.float32), (-1, first.shape[1]))

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        if batch.dtype != self.input.dtype or batch.shape[1:] != self.input.shape[1:]:
            raise EngineFailed(f"torch could not run the batch: {batch.dtype} {batch.shape} is not {self.input}")
        try:
            with torch.no_grad():
                rows = to_input(batch, self._steps) if self._image else torch.from_numpy(batch)
                logits: NDArray[np.float32] = self._net(rows).numpy()
        except Exception as error:
            raise EngineFailed(f"torch could not run the batch: {type(error).__name__}") from error
        return logits


def to_input(images: NDArray[np.uint8], steps: Preprocessing) -> Tensor:
    """uint8 [n, h, w, c] to the network's input [n, c, h, w] in torch, the reference for the preprocessing in the graph."""
    planes = nn.functional.pad(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).float(), (steps.pad,) * 4)
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (steps.mean, steps.std))
    return (planes / 255 - mean) / std
