"""Random tensors, as perf_analyzer sends them."""

from __future__ import annotations

import numpy as np

from convoy.errors import ConfigError
from convoy.wire.tensors import DTYPES
from loadtest.payloads.item import Item
from loadtest.plan import Payload


def draw_tensors(payload: Payload, seed: int) -> tuple[Item, ...]:
    """`count` tensors of one row; `shape` has no batch dimension. Raises ConfigError."""
    dtype = DTYPES.get(payload.datatype)
    if dtype is None:
        raise ConfigError(f"datatype {payload.datatype!r} is not one of {', '.join(DTYPES)}")
    if not payload.shape or any(size < 1 for size in payload.shape):
        raise ConfigError("a tensor payload needs its shape without the batch dimension, e.g. --shape 3,224,224")
    generator = np.random.default_rng([seed, 5])
    items = []
    for _ in range(payload.count):
        values = (
            generator.standard_normal(payload.shape) if dtype.kind == "f" else generator.integers(0, 2, payload.shape)
        )
        items.append(Item(tensor=values.astype(dtype)))
    return tuple(items)
