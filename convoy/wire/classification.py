"""Triton's classification extension: the K largest values of an output as text, `value:index` or `value:index:label`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convoy.errors import InvalidInput
from convoy.wire.tensors import BF16, BYTES, Tensor


def classify_output(tensor: Tensor, classes: int, labels: Sequence[str] = (), batched: bool = True) -> Tensor:
    """The `classes` largest values of each row of an output, in descending order; ties by index, NaN last.

    Args:
        tensor: numbers of shape [batch, n], or [n] when not `batched`; further dimensions count as part of n.
        classes: the requested number K; all classes when there are fewer.
        labels: the name of each index; an index without a name has no third field.
        batched: whether the first dimension is the batch.

    Returns:
        BYTES of shape [batch, K] or [K].

    Raises:
        InvalidInput: the output is not numbers.
    """
    if tensor.datatype in (BYTES, BF16):
        raise InvalidInput(f"output {tensor.name!r} is {tensor.datatype}, which has no classes")
    shape = tensor.shape if batched else (1, *tensor.shape)
    width = math.prod(shape[1:])
    rows = tensor.array.reshape(shape[0], width)
    count = min(classes, width)
    best = _descending(rows)[:, :count]
    values = np.take_along_axis(rows, best, axis=1).tolist()
    form = "{:f}:{}" if rows.dtype.kind == "f" else "{:d}:{}"
    texts = [
        (form.format(value, index) + (f":{labels[index]}" if index < len(labels) else "")).encode()
        for row, indices in zip(values, best.tolist(), strict=True)
        for value, index in zip(row, indices, strict=True)
    ]
    return Tensor(tensor.name, BYTES, (len(rows), count) if batched else (count,), texts)


def _descending(rows: NDArray[Any]) -> NDArray[np.intp]:
    """Per row the indices of its values in descending order; ties keep their order, NaN is last."""
    if rows.dtype.kind == "f":
        order: NDArray[np.intp] = np.argsort(-rows, axis=1, kind="stable")
    else:  # unsigned integers cannot be negated: sort the reversed row and reverse the result
        order = rows.shape[1] - 1 - np.argsort(rows[:, ::-1], axis=1, kind="stable")[:, ::-1]
    return order
