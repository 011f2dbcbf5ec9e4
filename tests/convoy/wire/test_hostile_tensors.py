"""Hostile tensors are refused as InvalidInput, at little cost."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convoy.errors import InvalidInput
from convoy.protos import open_inference_pb2 as pb
from convoy.wire.oip_grpc import parse_message
from convoy.wire.oip_http import InferRequest, InferResponse, check_unique, parse_request, raw_request, render_response
from convoy.wire.oip_http_client import parse_response
from convoy.wire.tensors import BYTES, DTYPES, MAX_NAME, Tensor, bf16_to_fp32, decode_json, decode_raw, fp32_to_bf16

MEGABYTE = 2**20


def test_duplicate_names_are_found_in_linear_time() -> None:
    class Name(str):
        compared = 0

        def __eq__(self, other: object) -> bool:
            Name.compared += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    names = [Name(number) for number in range(1000)]
    with pytest.raises(InvalidInput, match="'999' is named more than once"):
        check_unique("input", [*names, Name(999)])
    assert Name.compared < 10 * len(names)


@pytest.mark.parametrize("datatype", ["FP32", "FP64", BYTES])
def test_a_dimension_of_zero_does_not_hide_large_dimensions(datatype: str) -> None:
    shape = (0, 2**62, 2**62)
    with pytest.raises(InvalidInput, match="larger than any array"):
        decode_raw("t", datatype, shape, b"")
    with pytest.raises(InvalidInput, match="larger than any array"):
        decode_json("t", datatype, shape, [])


@given(st.lists(st.sampled_from([0, 1, 2, 2**31, 2**60, 2**63 - 1, 2**64 - 1, -1]), max_size=18))
def test_any_shape_is_parsed_or_refused(shape: list[int]) -> None:
    for datatype in (*DTYPES, BYTES):
        for size in (0, 8):
            try:
                tensor = decode_raw("t", datatype, shape, bytes(size))
            except InvalidInput:
                continue
            assert tensor.shape == tuple(shape)


def test_a_long_text_among_numbers_is_not_copied_to_every_element() -> None:
    data = ["x" * MEGABYTE, *["y"] * 1000]
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInput, match="not FP32"):
            decode_json("t", "FP32", (len(data),), data)
        assert tracemalloc.get_traced_memory()[1] < MEGABYTE
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("datatype", "value"), [("FP32", 1e300), ("UINT8", 256), ("INT8", -129), ("UINT64", -1), ("INT64", 2**63)]
)
def test_numbers_outside_the_datatype_are_refused(datatype: str, value: float) -> None:
    with pytest.raises(InvalidInput, match=f"do not fit {datatype}"):
        decode_json("t", datatype, (1,), [value])


@pytest.mark.parametrize(
    ("shape", "data"),
    [
        ((2, 2), [["a"], ["b", "c", "d"]]),
        ((2, 2), ["a", ["b", "c", "d"]]),
        ((2, 2), [["a", "b"], "cd"]),
        ((1, 2, 1), [["a", "b"]]),
        ((1,), [["a"]]),
        ((), [["a"]]),
        ((1, 0), [["a"]]),
    ],
)
def test_nesting_must_match_the_shape(shape: tuple[int, ...], data: list[Any]) -> None:
    with pytest.raises(InvalidInput, match=r"nested|elements"):
        decode_json("t", BYTES, shape, data)


def test_bool_bytes_must_be_zero_or_one() -> None:
    assert decode_raw("t", "BOOL", (2,), b"\x00\x01").array.tolist() == [False, True]
    with pytest.raises(InvalidInput, match="BOOL"):
        decode_raw("t", "BOOL", (2,), b"\x00\x02")


def test_a_long_name_is_refused_with_a_short_error_text() -> None:
    name = "n" * (MAX_NAME + 1)
    body = orjson.dumps({"inputs": [{"name": name, "datatype": "FP32", "shape": [1], "data": [1]}]})
    message = pb.ModelInferRequest(raw_input_contents=[bytes(4)])
    message.inputs.add(name=name, datatype="FP32", shape=[1])
    with pytest.raises(InvalidInput) as over_http:
        parse_request(body, None)
    with pytest.raises(InvalidInput) as over_grpc:
        parse_message(message)
    assert str(over_http.value) == str(over_grpc.value)
    assert len(str(over_http.value)) < MAX_NAME


@pytest.mark.parametrize("offset", range(8))
def test_unaligned_numbers_are_copied_to_aligned_memory(offset: int) -> None:
    raw = bytes(offset) + np.arange(4.0).tobytes()
    array = decode_raw("t", "FP64", (4,), memoryview(raw)[offset:]).array
    assert array.flags.aligned
    assert array.tolist() == [0, 1, 2, 3]


def test_aligned_numbers_are_not_copied() -> None:
    raw = np.arange(4.0).tobytes()
    array = decode_raw("t", "FP64", (4,), raw).array
    assert np.shares_memory(array, np.frombuffer(raw, np.uint8))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_are_refused_in_json_and_kept_in_binary(value: float) -> None:
    response = InferResponse("m", "1", "", (Tensor("y", "FP32", (1,), np.array([value], np.float32)),))
    with pytest.raises(InvalidInput, match="NaN or infinity"):
        render_response(response, InferRequest(()))
    body, length = render_response(response, InferRequest((), binary_output=True))
    np.testing.assert_array_equal(parse_response(body, length).outputs[0].array, [np.float32(value)])


def test_the_body_sets_the_open_dimension_of_raw_requests() -> None:
    body = np.arange(6, dtype=np.float32).tobytes()
    assert raw_request("x", body, "FP32", (1, 2, 3)).inputs[0].shape == (1, 2, 3)
    assert raw_request("x", body, "FP32", (1, -1, 3)).inputs[0].shape == (1, 2, 3)
    assert raw_request("x", b"", "FP32", (1, -1)).inputs[0].shape == (1, 0)
    assert raw_request("x", b"jpeg", BYTES, (1, 1)).inputs[0] == Tensor("x", BYTES, (1, 1), [b"jpeg"])


@pytest.mark.parametrize(
    ("datatype", "shape"),
    [
        ("FP32", (1, 5)),
        ("FP32", (1, -1, 4)),
        ("FP32", (-1, -1)),
        ("FP32", (0, -1)),
        ("FP33", (1, -1)),
        (BYTES, (2,)),
    ],
)
def test_raw_requests_that_do_not_fit_the_shape_are_refused(datatype: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput, match="'x'"):
        raw_request("x", bytes(24), datatype, shape)


@given(st.floats(width=32, allow_nan=False))
def test_bfloat16_rounds_to_nearest(value: float) -> None:
    exact = np.float32(value)
    with np.errstate(over="ignore"):
        bits = fp32_to_bf16(np.array([exact]))
        rounded = bf16_to_fp32(bits)[0]
        around = bits.astype(np.int64) + np.array([[-1], [0], [1]])
        neighbours = bf16_to_fp32(around.astype(np.uint16)).ravel()
    finite = [number for number in neighbours.tolist() if np.isfinite(number)]
    if np.isfinite(rounded):
        assert abs(float(rounded) - value) <= min(abs(number - value) for number in finite)
    else:
        assert abs(value) > 3.39e38


def test_bfloat16_keeps_nan_and_infinity() -> None:
    values = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0], np.float32)
    np.testing.assert_array_equal(bf16_to_fp32(fp32_to_bf16(values)), values)
