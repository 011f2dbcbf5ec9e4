"""The classification extension: the best classes of each row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from convoy.errors import InvalidInput
from convoy.wire.classification import classify_output
from convoy.wire.tensors import BYTES, DTYPES, Tensor


def test_classes_are_in_descending_order_with_known_labels() -> None:
    logits = np.array([[1.0, 3.0, 3.0], [np.nan, 0.5, -1.0]], np.float32)
    best = classify_output(Tensor("y", "FP32", (2, 3), logits), 2, ("cat", "dog"))
    assert best == Tensor("y", BYTES, (2, 2), [b"3.000000:1:dog", b"3.000000:2", b"0.500000:1:dog", b"-1.000000:2"])


def test_integers_without_a_batch_dimension_are_ranked() -> None:
    values = np.array([1, 200, 200], np.uint8)
    best = classify_output(Tensor("y", "UINT8", (3,), values), 9, batched=False)
    assert best == Tensor("y", BYTES, (3,), [b"200:1", b"200:2", b"1:0"])


def test_an_empty_batch_has_no_classes() -> None:
    assert classify_output(Tensor("y", "FP32", (0, 3), np.zeros((0, 3), np.float32)), 2).elements == []


@pytest.mark.parametrize("tensor", [Tensor("y", BYTES, (1,), [b""]), Tensor("y", "BF16", (1,), np.zeros(1, np.uint16))])
def test_only_numbers_have_classes(tensor: Tensor) -> None:
    with pytest.raises(InvalidInput, match="'y'"):
        classify_output(tensor, 1)


@pytest.mark.parametrize("datatype", sorted(DTYPES))
@given(data=st.data())
def test_classes_are_the_largest_values_with_their_indices(datatype: str, data: st.DataObject) -> None:
    dtype: np.dtype[Any] = DTYPES[datatype]
    finite = {"allow_nan": False, "allow_infinity": False} if dtype.kind == "f" else {}
    array = data.draw(arrays(dtype, array_shapes(min_dims=1, max_dims=3, max_side=5), elements=finite))
    classes = data.draw(st.integers(1, 30))
    best = classify_output(Tensor("y", datatype, array.shape, array), classes)
    rows = array.reshape(len(array), -1)
    assert best.shape == (len(rows), min(classes, rows.shape[1]))
    for position, row in enumerate(rows.tolist()):
        texts = best.elements[position * best.shape[1] : (position + 1) * best.shape[1]]
        indices = [int(text.split(b":")[1]) for text in texts]
        assert indices == sorted(range(len(row)), key=lambda index: (-row[index], index))[: best.shape[1]]
