"""Open Inference over gRPC: messages to requests and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convoy.errors import InvalidInput
from convoy.protos import open_inference_pb2 as pb
from convoy.wire.oip_grpc import CONTENTS, parse_message, render_bytes, render_message
from convoy.wire.oip_http import InferResponse
from convoy.wire.tensors import BYTES, Tensor, encode_raw
from tests.convoy.wire.test_tensors import tensors


def message(tensor: Tensor, raw: bool) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="m", id="7")
    entry = request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
    if raw:
        request.raw_input_contents.append(encode_raw(tensor))
    else:
        values = tensor.data if isinstance(tensor.data, list) else tensor.data.ravel().tolist()
        getattr(entry.contents, CONTENTS[tensor.datatype]).extend(values)
    return request


@given(tensors())
def test_raw_contents_make_a_round_trip(tensor: Tensor) -> None:
    parsed = parse_message(message(tensor, raw=True))
    assert parsed.id == "7"
    np.testing.assert_array_equal(parsed.inputs[0].array, tensor.array)


@given(tensors([name for name in CONTENTS if name != BYTES]))
def test_typed_contents_make_a_round_trip(tensor: Tensor) -> None:
    np.testing.assert_array_equal(parse_message(message(tensor, raw=False)).inputs[0].array, tensor.array)


def test_elements_are_read_from_raw_and_typed_contents() -> None:
    tensor = Tensor("t", BYTES, (2,), [b"a", b""])
    for raw in (True, False):
        assert parse_message(message(tensor, raw)).inputs[0].elements == [b"a", b""]


def test_answers_are_always_raw() -> None:
    tensor = Tensor("logits", "FP32", (1, 2), np.array([[1.0, 2.0]], np.float32))
    answer = render_message(InferResponse("m", "1", "7", (tensor,)))
    assert answer.raw_output_contents == [tensor.array.tobytes()]
    assert not answer.outputs[0].HasField("contents")


@given(tensors(), st.text(st.characters(exclude_categories=["Cs"]), max_size=300), st.booleans(), st.integers(0, 2))
def test_rendered_bytes_are_the_rendered_message(tensor: Tensor, identifier: str, cached: bool, more: int) -> None:
    parameters = {"cached": True} if cached else {}
    outputs = (tensor,) * (1 + more)
    response = InferResponse("m" * 200, "1", identifier, outputs, parameters)
    for _ in range(2):  # the second time with the part that is kept
        assert pb.ModelInferResponse.FromString(render_bytes(response)) == render_message(response)


def test_parameters_are_parsed() -> None:
    request = message(Tensor("t", "FP32", (1,), np.zeros(1, np.float32)), raw=True)
    request.parameters["priority"].uint64_param = 2
    request.parameters["timeout"].int64_param = 1000
    request.parameters["note"].string_param = "x"
    assert parse_message(request).parameters == {"priority": 2, "timeout": 1000, "note": "x"}


def test_malformed_messages_are_invalid_input() -> None:
    tensor = Tensor("t", "FP32", (2,), np.zeros(2, np.float32))
    both = message(tensor, raw=True)
    both.inputs[0].contents.fp32_contents.extend([0, 0])
    too_many = message(tensor, raw=True)
    too_many.raw_input_contents.append(b"")
    short = message(tensor, raw=True)
    short.raw_input_contents[0] = b"123"
    wrong_field = message(tensor, raw=False)
    wrong_field.inputs[0].contents.int_contents.append(1)
    too_few = message(tensor, raw=False)
    del too_few.inputs[0].contents.fp32_contents[0]
    half = message(Tensor("t", "FP32", (1,), np.zeros(1, np.float32)), raw=False)
    half.inputs[0].datatype = "FP16"
    overflow = message(Tensor("t", "UINT16", (1,), np.zeros(1, np.uint16)), raw=False)
    overflow.inputs[0].datatype = "UINT8"
    overflow.inputs[0].contents.uint_contents[0] = 300
    negative = message(tensor, raw=True)
    negative.inputs[0].shape[0] = -2
    for bad in (pb.ModelInferRequest(), both, too_many, short, wrong_field, too_few, half, overflow, negative):
        with pytest.raises(InvalidInput):
            parse_message(bad)
