"""The interface of all engines, independent of the backend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class TensorSpec:
    """Name, element type and shape of an input or output; -1 is the batch dimension."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class Engine(Protocol):
    """Runs batches. Thread-safe, and releases the GIL during a run.

    Returned logits belong to the caller: a later run must not overwrite them.
    """

    @property
    def input(self) -> TensorSpec:
        """The only input."""
        ...

    @property
    def output(self) -> TensorSpec:
        """The logits, FP32 [n, classes]."""
        ...

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Logits [n, classes] of a batch [n, …]. Raises EngineFailed."""
        ...


def run_in_parts(
    run: Callable[[NDArray[Any]], NDArray[np.float32]], batch: NDArray[Any], most: int
) -> NDArray[np.float32]:
    """Logits [n, classes] of a batch of any size, by calls of `run` with at most `most` rows each."""
    if len(batch) <= most:
        return run(batch)
    return np.concatenate([run(batch[start : start + most]) for start in range(0, len(batch), most)])
