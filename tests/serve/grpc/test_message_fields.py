"""Fields of protobuf messages are counted before the messages are parsed."""

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
        (pb.ModelInferRequest, b"\xf8\x07\x00"),  # an unknown field
    ],
)
def test_a_message_with_too_many_fields_is_refused_early(kind: Any, bomb: bytes) -> None:
    for data in (bomb * MILLION, bomb * MILLION + b"\xff"):  # a parser would notice the error only at the end
        assert isinstance(bounded(kind, 5000)(data), TooLarge)


def test_empty_elements_within_a_tensor_count() -> None:
    contents = pb.InferTensorContents(bytes_contents=[b""] * MILLION).SerializeToString()
    request = pb.ModelInferRequest()
    request.inputs.add(name="x").contents.ParseFromString(contents)
    assert isinstance(bounded(pb.ModelInferRequest, 5000)(request.SerializeToString()), TooLarge)


def test_large_raw_contents_are_one_field() -> None:
    request = infer(b"\x2a" * 4 * MILLION, 64)  # bytes that look like tags of inputs
    assert bounded(pb.ModelInferRequest, 5000)(request.SerializeToString()) == request


@given(st.binary(max_size=100))
def test_every_message_that_parses_can_be_counted(data: bytes) -> None:
    """The count accepts what the parser accepts, except for field numbers and groups that no proto3 message has."""
    try:
        check_fields(REQUEST, data, 1000)
    except InvalidInput as error:
        if "wire type" in str(error) or "field number" in str(error):
            return
        with pytest.raises(DecodeError):
            pb.ModelInferRequest.FromString(data)


@given(st.binary(max_size=100))
def test_garbage_is_returned_as_an_error(data: bytes) -> None:
    for padding in (b"", b"\x3a\xa0\x8d\x06" + bytes(100_000)):
        assert isinstance(bounded(pb.ModelInferRequest, 1000)(padding + data), pb.ModelInferRequest | InvalidInput)


@pytest.mark.parametrize(
    "tag", [b"\x80" * 10 + b"\x01", b"\xaa\x80\x80\x80\x80\x01", b"\x2b", b"\x2c", b"\x2a\x7f", b"\x2d\x00"]
)
def test_malformed_fields_are_refused(tag: bytes) -> None:
    with pytest.raises(InvalidInput):
        check_fields(REQUEST, tag, 10)
    with contextlib.suppress(DecodeError):
        assert not pb.ModelInferRequest.FromString(tag).inputs  # the parser must not find an input either
    assert isinstance(bounded(pb.ModelInferRequest, 10)(b"\x3a\x80\x80\x04" + bytes(SMALL_BYTES) + tag), InvalidInput)
