"""Open Inference over HTTP: bodies to requests and back."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convoy.errors import InvalidInput
from convoy.wire.oip_http import (
    InferRequest,
    InferResponse,
    RequestedOutput,
    parse_request,
    raw_request,
    render_response,
)
from convoy.wire.tensors import Tensor

TENSOR = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}


def binary(size: Any = 8, **more: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": size}} | more


def body(*inputs: Any, tail: bytes = b"", **more: Any) -> tuple[bytes, int | None]:
    head = json.dumps({"inputs": list(inputs)} | more).encode()
    return head + tail, len(head) if tail else None


def test_json_binary_and_mixed_requests_are_parsed() -> None:
    data = np.array([1.0, 2.0], np.float32).tobytes()
    for inputs, tail in (([TENSOR], b""), ([binary()], data), ([TENSOR, binary(name="y")], data)):
        request = parse_request(*body(*inputs, tail=tail, id="7", model_name="ignored"))
        assert request.id == "7"
        for tensor in request.inputs:
            assert tensor.array.tolist() == [[1.0, 2.0]]


def test_outputs_and_flags_are_parsed() -> None:
    outputs = [{"name": "a", "parameters": {"binary_data": True}}, {"name": "b", "parameters": {"classification": 3}}]
    request = parse_request(*body(TENSOR, outputs=outputs, parameters={"binary_data_output": True, "priority": 1}))
    assert request.outputs == (RequestedOutput("a", True, 0), RequestedOutput("b", None, 3))
    assert request.binary_output
    assert request.parameters["priority"] == 1


MALFORMED: dict[str, tuple[bytes, int | None]] = {
    "empty": (b"", None),
    "not JSON": (b"{", None),
    "not an object": (b"[]", None),
    "a number": (b"1", None),
    "no inputs": (b"{}", None),
    "inputs not a list": (b'{"inputs": {}}', None),
    "no input": (b'{"inputs": []}', None),
    "input not an object": (b'{"inputs": [1]}', None),
    "no name": body({"datatype": "FP32", "shape": [1], "data": [1]}),
    "name not text": body(TENSOR | {"name": 1}),
    "no datatype": body({"name": "x", "shape": [1], "data": [1]}),
    "unknown datatype": body(TENSOR | {"datatype": "FP33"}),
    "no shape": body({"name": "x", "datatype": "FP32", "data": [1]}),
    "negative shape": body(TENSOR | {"shape": [-1, 2]}),
    "fractional shape": body(TENSOR | {"shape": [1.5, 2]}),
    "no data": body({"name": "x", "datatype": "FP32", "shape": [1, 2]}),
    "too few data": body(TENSOR | {"data": [1.0]}),
    "id not text": body(TENSOR, id=1),
    "parameters not an object": body(TENSOR, parameters=[]),
    "reserved parameter": body(TENSOR, parameters={"triton_enable": True}),
    "flag not a flag": body(TENSOR, parameters={"binary_data_output": 1}),
    "outputs not a list": body(TENSOR, outputs={}),
    "output without name": body(TENSOR, outputs=[{}]),
    "classification not a number": body(TENSOR, outputs=[{"name": "a", "parameters": {"classification": "2"}}]),
    "data and binary": body(binary(data=[1.0, 2.0]), tail=bytes(8)),
    "size not a number": body(binary("8"), tail=bytes(8)),
    "negative size": body(binary(-8), tail=bytes(8)),
    "size is true": body(binary(True), tail=bytes(8)),
    "size does not fit the shape": body(binary(4), tail=bytes(4)),
    "tail too short": body(binary(), tail=bytes(7)),
    "tail too long": body(binary(), tail=bytes(9)),
    "tail without tensor": body(TENSOR, tail=bytes(1)),
    "header length over the body": (b"{}", 3),
    "header length negative": (b"{}", -1),
    "header cuts the JSON": (body(TENSOR)[0], 5),
}


@pytest.mark.parametrize(("raw", "length"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_requests_are_invalid_input(raw: bytes, length: int | None) -> None:
    with pytest.raises(InvalidInput):
        parse_request(raw, length)


@given(st.binary(max_size=200), st.none() | st.integers(-5, 210))
def test_any_bytes_are_parsed_or_invalid_input(raw: bytes, length: int | None) -> None:
    with suppress(InvalidInput):
        parse_request(raw, length)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["name", "datatype", "shape", "data", "parameters", "inputs", "outputs", "binary_data_size", "id"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(json_values, st.binary(max_size=20))
def test_any_json_is_parsed_or_invalid_input(value: Any, tail: bytes) -> None:
    head = json.dumps({"inputs": [value]}).encode()
    for raw, length in ((json.dumps(value).encode(), None), (head + tail, len(head))):
        with suppress(InvalidInput):
            parse_request(raw, length)


def response(*tensors: Tensor) -> InferResponse:
    return InferResponse("m", "1", "id", tensors)


def test_answers_are_written_in_json_and_binary() -> None:
    a = Tensor("a", "FP32", (1, 2), np.array([[1.0, 2.0]], np.float32))
    b = Tensor("b", "BYTES", (1,), [b"text"])
    request = InferRequest((), (RequestedOutput("a", binary=True), RequestedOutput("b")))
    raw, length = render_response(response(a, b), request)
    assert length is not None
    document = json.loads(raw[:length])
    assert document["model_name"] == "m"
    assert document["id"] == "id"
    assert document["outputs"][0]["parameters"] == {"binary_data_size": 8}
    assert "data" not in document["outputs"][0]
    assert document["outputs"][1]["data"] == ["text"]
    assert raw[length:] == a.array.tobytes()
    everything, length = render_response(response(a, b), InferRequest((), binary_output=True))
    assert length is not None
    assert everything[length:] == a.array.tobytes() + b"\x04\0\0\0text"
    text, length = render_response(response(a), InferRequest(()))
    assert length is None
    assert json.loads(text)["outputs"][0]["data"] == [1.0, 2.0]


def test_bytes_that_json_cannot_hold_must_be_requested_in_binary() -> None:
    with pytest.raises(InvalidInput, match="binary"):
        render_response(response(Tensor("b", "BYTES", (1,), [b"\xff"])), InferRequest(()))


def test_a_raw_request_is_a_single_element() -> None:
    request = raw_request("image", b"jpeg")
    assert request.inputs[0].elements == [b"jpeg"]
    assert request.binary_output
