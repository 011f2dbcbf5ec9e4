"""A single payload."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Expected = str | int | None


@dataclass(frozen=True)
class Item:
    """An encoded image or a tensor of one row, and its true label (text or class number) if known."""

    image: bytes = b""
    tensor: NDArray[Any] | None = None
    expected: Expected = None

    @property
    def row(self) -> NDArray[Any]:
        """The tensor; empty for an item without one."""
        return np.empty(0) if self.tensor is None else self.tensor
