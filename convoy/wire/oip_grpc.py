"""Inference messages of the Open Inference Protocol over gRPC, for server and client."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from convoy.errors import InvalidInput
from convoy.protos import open_inference_pb2 as pb
from convoy.wire.oip_http import (
    MAX_PARAMETERS,
    NO_PARAMETERS,
    InferRequest,
    InferResponse,
    Parameters,
    RequestedOutput,
    check_number,
    check_unique,
    class_count,
    refuse_shared_memory,
)
from convoy.wire.tensors import (
    BYTES,
    DTYPES,
    CheckTensor,
    Tensor,
    accept_any,
    check_name,
    check_shape,
    decode_checked,
    encode_raw,
    layout_of,
    to_array,
)

CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}
INT64_MAX = 2**63 - 1
ID_TAG, RAW_TAG = b"\x1a", b"\x32"  # of ModelInferResponse's `id` and `raw_output_contents`
RAW_INPUT_TAG = b"\x3a"  # of ModelInferRequest's `raw_input_contents`
KEPT_HEADS = 256

Entry = pb.ModelInferRequest.InferInputTensor | pb.ModelInferResponse.InferOutputTensor


def parse_message(message: pb.ModelInferRequest, check: CheckTensor = accept_any) -> InferRequest:
    """Parses a request. Raises InvalidInput.

    `check` may refuse a tensor by its name, datatype and shape, before its elements are read.
    """
    if not message.inputs:
        raise InvalidInput("inputs must hold at least one tensor")
    return InferRequest(
        _tensors("input", message.inputs, message.raw_input_contents, check),
        _requested(message.outputs),
        message.id,
        _from_parameters(message.parameters),
        True,
        message.model_name,
        message.model_version,
    )


def _requested(entries: Any) -> tuple[RequestedOutput, ...]:
    if not entries:
        return ()
    check_number("outputs", len(entries))
    outputs = []
    for entry in entries:
        name, parameters = check_name(entry.name), _from_parameters(entry.parameters)
        refuse_shared_memory(name, parameters)
        outputs.append(RequestedOutput(name, classes=class_count(parameters)))
    check_unique("output", [output.name for output in outputs])
    return tuple(outputs)


def _tensors(kind: str, entries: Any, raw: Any, check: CheckTensor) -> tuple[Tensor, ...]:
    """The tensors of a request or a response, from either raw or typed contents."""
    check_number(f"{kind}s", len(entries))
    if raw and len(raw) != len(entries):
        raise InvalidInput(f"{len(raw)} raw_{kind}_contents for {len(entries)} {kind}s")
    tensors = []
    for position, entry in enumerate(entries):
        name = check_name(entry.name)
        if entry.parameters:
            refuse_shared_memory(name, _from_parameters(entry.parameters))
        if not raw:
            tensors.append(_from_contents(entry, check))
        elif entry.HasField("contents") and entry.contents.ListFields():
            raise InvalidInput(f"tensor {name!r} has contents beside raw_{kind}_contents")
        else:
            shape = check_shape(name, entry.shape)
            if entry.datatype == BYTES:
                check(name, BYTES, shape)
            tensors.append(decode_checked(name, entry.datatype, shape, raw[position]))
    check_unique(kind, [tensor.name for tensor in tensors])
    return tuple(tensors)


def _from_contents(entry: Entry, check: CheckTensor) -> Tensor:
    name, datatype = entry.name, entry.datatype
    shape = check_shape(name, entry.shape)
    check(name, datatype, shape)
    field = CONTENTS.get(datatype)
    if field is None:
        layout_of(name, datatype)
        raise InvalidInput(f"tensor {name!r}: {datatype} has no typed contents; use raw contents")
    if any(descriptor.name != field for descriptor, _ in entry.contents.ListFields()):
        raise InvalidInput(f"tensor {name!r} is {datatype}, so its contents belong in {field}")
    values = getattr(entry.contents, field)
    expected = math.prod(shape)
    if len(values) != expected:
        raise InvalidInput(f"tensor {name!r} has {len(values)} elements; its shape needs {expected}")
    if datatype == BYTES:
        return Tensor(name, BYTES, shape, list(values))
    try:
        array = to_array(values, DTYPES[datatype])
    except OverflowError as error:
        raise InvalidInput(f"tensor {name!r} holds values that do not fit {datatype}") from error
    return Tensor(name, datatype, shape, array.reshape(shape))


def _from_parameters(parameters: Mapping[str, pb.InferParameter]) -> Parameters:
    if not parameters:
        return NO_PARAMETERS
    check_number("parameters", len(parameters), MAX_PARAMETERS)
    found = {}
    for key, value in parameters.items():
        choice = value.WhichOneof("parameter_choice")
        if choice is None:
            raise InvalidInput(f"parameter {key[:60]!r} has no value")
        found[key] = getattr(value, choice)
    return found


def _to_parameters(parameters: Parameters) -> dict[str, pb.InferParameter]:
    return {key: _to_parameter(value) for key, value in parameters.items()}


def _to_parameter(value: str | int | float | bool) -> pb.InferParameter:
    if isinstance(value, bool):
        return pb.InferParameter(bool_param=value)
    if isinstance(value, str):
        return pb.InferParameter(string_param=value)
    if isinstance(value, float):
        return pb.InferParameter(double_param=value)
    return pb.InferParameter(uint64_param=value) if value > INT64_MAX else pb.InferParameter(int64_param=value)


def render_message(response: InferResponse) -> pb.ModelInferResponse:
    """Renders a response, always with raw contents: the only form that every client reads."""
    return pb.ModelInferResponse(
        model_name=response.model_name,
        model_version=response.model_version,
        id=response.id,
        parameters=_to_parameters(response.parameters) if response.parameters else None,
        outputs=[
            pb.ModelInferResponse.InferOutputTensor(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
            for tensor in response.outputs
        ],
        raw_output_contents=[encode_raw(tensor) for tensor in response.outputs],
    )


def render_bytes(response: InferResponse) -> bytes:
    """A response as serialized by protobuf, with raw contents. The part without data is rendered once per model and shape."""
    outputs = response.outputs
    if response.parameters or len(outputs) != 1:
        return render_message(response).SerializeToString()
    (tensor,) = outputs
    raw = encode_raw(tensor)
    head = _head(response.model_name, response.model_version, tensor.name, tensor.datatype, tensor.shape)
    if response.id:
        identifier = response.id.encode()
        return b"".join((head, ID_TAG, varint(len(identifier)), identifier, RAW_TAG, varint(len(raw)), raw))
    return b"".join((head, RAW_TAG, varint(len(raw)), raw))


@lru_cache(KEPT_HEADS)
def _head(model: str, version: str, name: str, datatype: str, shape: tuple[int, ...]) -> bytes:
    """A serialized response without id and contents. Protobuf's fields may come in any order, so those can follow."""
    tensor = pb.ModelInferResponse.InferOutputTensor(name=name, datatype=datatype, shape=shape)
    return pb.ModelInferResponse(model_name=model, model_version=version, outputs=[tensor]).SerializeToString()


def varint(number: int) -> bytes:
    """A base-128 varint, https://protobuf.dev/programming-guides/encoding/."""
    if number < 128:
        return bytes((number,))
    digits = bytearray()
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    digits.append(number)
    return bytes(digits)


def render_request_message(request: InferRequest) -> pb.ModelInferRequest:
    """Renders a client's request, with raw contents."""
    return pb.ModelInferRequest(
        model_name=request.model,
        model_version=request.version,
        id=request.id,
        parameters=_to_parameters(request.parameters),
        inputs=[
            pb.ModelInferRequest.InferInputTensor(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
            for tensor in request.inputs
        ],
        outputs=[
            pb.ModelInferRequest.InferRequestedOutputTensor(
                name=output.name,
                parameters=_to_parameters({"classification": output.classes} if output.classes else {}),
            )
            for output in request.outputs
        ],
        raw_input_contents=[encode_raw(tensor) for tensor in request.inputs],
    )


def parse_response_message(message: pb.ModelInferResponse) -> InferResponse:
    """Parses a response, with raw or typed contents. Raises InvalidInput."""
    return InferResponse(
        message.model_name,
        message.model_version,
        message.id,
        _tensors("output", message.outputs, message.raw_output_contents, accept_any),
        _from_parameters(message.parameters),
    )
