"""Tensors in JSON and binary form."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from convoy.errors import InvalidInput
from convoy.wire.tensors import (
    BYTES,
    DTYPES,
    NAMES,
    NOT_IN_JSON,
    Tensor,
    check_shape,
    decode_json,
    decode_raw,
    encode_raw,
    to_json,
)

NUMERIC = sorted(DTYPES)
shapes = array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


@st.composite
def tensors(draw: st.DrawFn, datatypes: list[str] = NUMERIC) -> Tensor:
    datatype = draw(st.sampled_from(datatypes))
    array = draw(arrays(DTYPES[datatype], shapes))
    return Tensor("t", datatype, array.shape, array)


def through_json(tensor: Tensor) -> Any:
    """The JSON data of a tensor after serialization and parsing."""
    return orjson.loads(orjson.dumps(to_json(tensor), option=orjson.OPT_SERIALIZE_NUMPY))


def test_all_numeric_datatypes_of_the_protocol_are_known() -> None:
    sizes = {name: dtype.itemsize for name, dtype in DTYPES.items()}
    assert sizes == {
        "BOOL": 1, "UINT8": 1, "UINT16": 2, "UINT32": 4, "UINT64": 8, "INT8": 1, "INT16": 2, "INT32": 4, "INT64": 8,
        "FP16": 2, "FP32": 4, "FP64": 8,
    }  # fmt: skip
    assert set(NAMES.values()) == set(DTYPES)


@given(tensors())
def test_binary_data_make_a_round_trip(tensor: Tensor) -> None:
    decoded = decode_raw("t", tensor.datatype, tensor.shape, encode_raw(tensor))
    np.testing.assert_array_equal(decoded.array, tensor.array)


@given(tensors([name for name in NUMERIC if name not in NOT_IN_JSON and not name.startswith("FP")]))
def test_integers_make_a_round_trip_in_json(tensor: Tensor) -> None:
    for data in (through_json(tensor), tensor.array.tolist() if tensor.shape else through_json(tensor)):
        decoded = decode_json("t", tensor.datatype, tensor.shape, data)
        np.testing.assert_array_equal(decoded.array, tensor.array)


@given(arrays(np.float32, shapes, elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_floats_make_a_round_trip_in_json(array: np.ndarray) -> None:
    tensor = Tensor("t", "FP32", array.shape, array)
    np.testing.assert_array_equal(decode_json("t", "FP32", array.shape, through_json(tensor)).array, array)


@given(st.lists(st.binary(max_size=20), max_size=10))
def test_elements_make_a_round_trip(elements: list[bytes]) -> None:
    tensor = Tensor("t", BYTES, (len(elements),), elements)
    assert decode_raw("t", BYTES, tensor.shape, encode_raw(tensor)).elements == elements


@given(st.binary(max_size=60), st.lists(st.integers(0, 5), max_size=3))
def test_any_bytes_are_elements_or_invalid_input(raw: bytes, shape: list[int]) -> None:
    try:
        tensor = decode_raw("t", BYTES, tuple(shape), raw)
    except InvalidInput:
        return
    assert encode_raw(tensor) == raw


@pytest.mark.parametrize(
    ("datatype", "shape", "data"),
    [
        ("FP32", (2,), [1.0]),
        ("FP32", (2,), [[1.0, 2.0]]),
        ("FP32", (1, 2), [[1.0], [2.0]]),
        ("FP32", (2,), [1.0, "x"]),
        ("FP32", (2,), [1.0, None]),
        ("FP32", (2,), [[1.0], [2.0, 3.0]]),
        ("FP32", (1,), 1.0),
        ("FP32", (1,), None),
        ("UINT8", (1,), [256]),
        ("UINT8", (1,), [-1]),
        ("UINT8", (1,), [1.5]),
        ("INT64", (1,), [2**70]),
        ("BOOL", (1,), [2]),
        ("UINT8", (1,), [True]),
        ("FP16", (1,), [1.0]),
        ("BF16", (1,), [1.0]),
        (BYTES, (1,), [1]),
        (BYTES, (1,), ["a", "b"]),
        (BYTES, (1,), ["\ud800"]),
    ],
)
def test_json_that_does_not_fit_is_invalid_input(datatype: str, shape: tuple[int, ...], data: Any) -> None:
    with pytest.raises(InvalidInput, match="t"):
        decode_json("t", datatype, shape, data)


@pytest.mark.parametrize("shape", [[-1], [1.0], ["1"], [True], [None], [1] * 17])
def test_invalid_shapes_are_refused(shape: list[Any]) -> None:
    with pytest.raises(InvalidInput):
        check_shape("t", shape)


def test_a_huge_shape_is_refused_without_allocation() -> None:
    with pytest.raises(InvalidInput, match="bytes"):
        decode_raw("t", "FP64", (2**62, 2**62), b"1234")
    with pytest.raises(InvalidInput):
        decode_json("t", "FP64", (2**62,), [1.0])


def test_deep_nesting_is_refused() -> None:
    data: list[Any] = []
    for _ in range(500):
        data = [data]
    for datatype in (BYTES, "FP32"):
        with pytest.raises(InvalidInput):
            decode_json("t", datatype, (1,), data)


def test_numbers_and_elements_cannot_be_confused() -> None:
    with pytest.raises(InvalidInput, match="BYTES"):
        _ = Tensor("t", BYTES, (1,), [b""]).array
    with pytest.raises(InvalidInput, match="FP32"):
        _ = Tensor("t", "FP32", (1,), np.zeros(1, np.float32)).elements
