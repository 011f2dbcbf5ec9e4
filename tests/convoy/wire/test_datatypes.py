"""Every datatype makes a round trip through an identity model, in each of the four encodings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from convoy.errors import InvalidInput
from convoy.protos import open_inference_pb2 as pb
from convoy.wire.oip_grpc import CONTENTS, parse_message, parse_response_message, render_message, render_request_message
from convoy.wire.oip_http import InferRequest, InferResponse, parse_request, render_response
from convoy.wire.oip_http_client import parse_response, render_request
from convoy.wire.tensors import BYTES, LAYOUT, NOT_IN_JSON, Tensor

Wire = Callable[[InferRequest], InferResponse]
DATATYPES = [*LAYOUT, BYTES]


def identity(request: InferRequest) -> InferResponse:
    """A model that returns its inputs."""
    return InferResponse(request.model, request.version, request.id, request.inputs, request.parameters)


def by_json(request: InferRequest) -> InferResponse:
    body, length = render_request(replace(request, binary_output=False), binary=False)
    assert length is None
    parsed = parse_request(body, length, request.model, request.version)
    return parse_response(*render_response(identity(parsed), parsed))


def by_http_binary(request: InferRequest) -> InferResponse:
    body, length = render_request(request)
    assert length is not None
    parsed = parse_request(body, length, request.model, request.version)
    return parse_response(*render_response(identity(parsed), parsed))


def by_grpc_raw(request: InferRequest) -> InferResponse:
    sent = pb.ModelInferRequest.FromString(render_request_message(request).SerializeToString())
    answer = render_message(identity(parse_message(sent)))
    return parse_response_message(pb.ModelInferResponse.FromString(answer.SerializeToString()))


def by_grpc_typed(request: InferRequest) -> InferResponse:
    message = render_request_message(request)
    del message.raw_input_contents[:]
    for entry, tensor in zip(message.inputs, request.inputs, strict=True):
        values = tensor.data if isinstance(tensor.data, list) else tensor.data.ravel().tolist()
        getattr(entry.contents, CONTENTS[tensor.datatype]).extend(values)
    return parse_response_message(render_message(identity(parse_message(message))))


@st.composite
def tensors(draw: st.DrawFn, datatype: str, name: str, as_json: bool) -> Tensor:
    if datatype == BYTES:
        alphabet = st.text(max_size=8).map(str.encode) if as_json else st.binary(max_size=8)
        elements = draw(st.lists(alphabet, max_size=5))
        return Tensor(name, BYTES, (len(elements),), elements)
    shape = draw(array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3))
    dtype = LAYOUT[datatype]
    finite = {"allow_nan": False, "allow_infinity": False} if as_json and dtype.kind == "f" else {}
    return Tensor(name, datatype, shape, draw(arrays(dtype, shape, elements=finite)))


@st.composite
def requests(draw: st.DrawFn, datatype: str, as_json: bool) -> InferRequest:
    names = draw(st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=3, unique=True))
    inputs = tuple(draw(tensors(datatype, name, as_json)) for name in names)
    parameters = draw(st.sampled_from([{}, {"note": "x", "priority": 2, "ratio": 0.5}]))
    return InferRequest(inputs, (), draw(st.text(max_size=4)), parameters, True, "m", "3")


def check_same(sent: InferRequest, received: InferResponse) -> None:
    assert (received.model_name, received.model_version, received.id) == ("m", "3", sent.id)
    assert {key: received.parameters[key] for key in sent.parameters} == sent.parameters
    assert len(received.outputs) == len(sent.inputs)
    for before, after in zip(sent.inputs, received.outputs, strict=True):
        assert (after.name, after.datatype, after.shape) == (before.name, before.datatype, before.shape)
        if isinstance(before.data, list):
            assert after.data == before.data
        else:
            assert after.array.dtype == before.array.dtype
            np.testing.assert_array_equal(after.array, before.array)


@pytest.mark.parametrize("datatype", DATATYPES)
@pytest.mark.parametrize("wire", [by_http_binary, by_grpc_raw])
@given(data=st.data())
def test_binary_encodings_carry_every_datatype(wire: Wire, datatype: str, data: st.DataObject) -> None:
    request = data.draw(requests(datatype, as_json=False))
    check_same(request, wire(request))


@pytest.mark.parametrize("datatype", [name for name in DATATYPES if name not in NOT_IN_JSON])
@pytest.mark.parametrize("wire", [by_json, by_grpc_typed])
@given(data=st.data())
def test_typed_encodings_carry_all_but_half_precision(wire: Wire, datatype: str, data: st.DataObject) -> None:
    request = data.draw(requests(datatype, as_json=True))
    check_same(request, wire(request))


@pytest.mark.parametrize("datatype", sorted(NOT_IN_JSON))
def test_half_precision_is_refused_in_typed_encodings(datatype: str) -> None:
    tensor = Tensor("x", datatype, (1,), np.zeros(1, LAYOUT[datatype]))
    body = b'{"inputs": [{"name": "x", "datatype": "%s", "shape": [1], "data": [1.0]}]}' % datatype.encode()
    with pytest.raises(InvalidInput, match="binary"):
        parse_request(body, None)
    with pytest.raises(InvalidInput, match="binary"):
        render_response(InferResponse("m", "1", "", (tensor,)), InferRequest(()))
    message = pb.ModelInferRequest()
    message.inputs.add(name="x", datatype=datatype, shape=[1]).contents.fp32_contents.append(1)
    with pytest.raises(InvalidInput, match="raw contents"):
        parse_message(message)
