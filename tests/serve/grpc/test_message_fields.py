"""Protobuf messages whose fields are counted before they are parsed."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from convoy.errors import InvalidInput, TooLarge
from convoy.protos import classifier_pb2, experiments_pb2
from convoy.protos import open_inference_pb2 as pb
from serve.grpc.message_fields import SMALL_BYTES, bounded, check_fields

REQUEST = pb.ModelInferRequest.DESCRIPTOR
MILLION = 1_000_000


def infer(raw: bytes, images: int) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="m", id="7", raw_input_contents=[raw])
    request.parameters["priority"].int64_param = 1
    request.inputs.add(name="x", datatype="BYTES", shape=[images, 1]).contents.bytes_contents.extend([b"i"] * images)
    request.outputs.add(name="y").parameters["classification"].int64_param = 3
    return request


@given(st.binary(max_size=200), st.integers(0, 20))
def test_every_field_counts_once(raw: bytes, images: int) -> None:
    data = infer(raw, images).SerializeToString()
    # name, id, raw; parameter, its key, value and choice; input, three fields, contents; output, name, parameter and its three
    fields = 3 + 4 + 5 + 6 + images
    check_fields(REQUEST, data, fields)
    with pytest.raises(TooLarge, match="images_per_request"):
        check_fields(REQUEST, data, fields - 1)


@pytest.mark.parametrize(
    ("kind", "bomb"),
    [
        (classifier_pb2.ClassifyRequest, b"\x1a\x00"),  # images
        (experiments_pb2.FeedbackRequest, b"\x0a\x00"),
        (pb.ModelInferRequest, b"\x22\x00"),  # parameters
        (pb.ModelInferRequest, b"\x2a\x00"),  # inputs
        (pb.ModelInferRequest, b"\x32\x00"),  # outputs
        (pb.ModelInferRequest, b"\x3a\x00"),  # raw_input_contents
        (pb.ModelInferRequest, b"\xf8\x07\x00"),  # a field that nobody knows
    ],
)
def test_a_bomb_is_refused_in_a_few_steps(kind: Any, bomb: bytes) -> None:
    for data in (bomb * MILLION, bomb * MILLION + b"\xff"):  # also where a parser would only find out at the end
        assert isinstance(bounded(kind, 5000)(data), TooLarge)


def test_empty_elements_within_a_tensor_count() -> None:
    contents = pb.InferTensorContents(bytes_contents=[b""] * MILLION).SerializeToString()
    request = pb.ModelInferRequest()
    request.inputs.add(name="x").contents.ParseFromString(contents)
    assert isinstance(bounded(pb.ModelInferRequest, 5000)(request.SerializeToString()), TooLarge)


def test_large_data_are_one_field() -> None:
    request = infer(b"\x2a" * 4 * MILLION, 64)  # which looks like inputs to whoever searches for them
    assert bounded(pb.ModelInferRequest, 5000)(request.SerializeToString()) == request


@given(st.binary(max_size=100))
def test_whatever_is_parsed_has_been_counted(data: bytes) -> None:
    """What a parser accepts, this walk accepts too, except for field numbers and groups that no proto3 message has."""
    try:
        check_fields(REQUEST, data, 1000)
    except InvalidInput as error:
        if "wire type" in str(error) or "field number" in str(error):
            return
        with pytest.raises(DecodeError):
            pb.ModelInferRequest.FromString(data)


@given(st.binary(max_size=100))
def test_garbage_is_an_error_that_is_returned(data: bytes) -> None:
    for padding in (b"", b"\x3a\xa0\x8d\x06" + bytes(100_000)):
        assert isinstance(bounded(pb.ModelInferRequest, 1000)(padding + data), pb.ModelInferRequest | InvalidInput)


@pytest.mark.parametrize(
    "tag", [b"\x80" * 10 + b"\x01", b"\xaa\x80\x80\x80\x80\x01", b"\x2b", b"\x2c", b"\x2a\x7f", b"\x2d\x00"]
)
def test_what_is_no_field(tag: bytes) -> None:
    with pytest.raises(InvalidInput):
        check_fields(REQUEST, tag, 10)
    with contextlib.suppress(DecodeError):
        assert not pb.ModelInferRequest.FromString(tag).inputs  # so that nothing hides in it
    assert isinstance(bounded(pb.ModelInferRequest, 10)(b"\x3a\x80\x80\x04" + bytes(SMALL_BYTES) + tag), InvalidInput)
