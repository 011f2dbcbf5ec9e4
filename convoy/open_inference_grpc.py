"""The Open Inference Protocol's inference messages over gRPC."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from convoy.errors import InvalidInput
from convoy.open_inference import NO_PARAMETERS, InferRequest, InferResponse, Parameters, RequestedOutput, class_count
from convoy.protos import open_inference_pb2 as pb
from convoy.tensors import BYTES, DTYPES, Tensor, check_shape, decode_raw, encode_raw

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


def parse_message(message: pb.ModelInferRequest) -> InferRequest:
    """A request over gRPC. Raises InvalidInput."""
    raw = message.raw_input_contents
    if not message.inputs:
        raise InvalidInput("inputs must hold at least one tensor")
    if raw and len(raw) != len(message.inputs):
        raise InvalidInput(f"{len(raw)} raw_input_contents for {len(message.inputs)} inputs")
    tensors = []
    for position, entry in enumerate(message.inputs):
        shape = check_shape(entry.name, entry.shape)
        if not raw:
            tensors.append(_from_contents(entry, shape))
        elif entry.HasField("contents"):
            raise InvalidInput(f"tensor {entry.name!r} has contents beside raw_input_contents")
        else:
            tensors.append(decode_raw(entry.name, entry.datatype, shape, raw[position]))
    outputs = tuple(
        RequestedOutput(entry.name, classes=class_count(_from_parameters(entry.parameters)))
        for entry in message.outputs
    )
    return InferRequest(tuple(tensors), outputs, message.id, _from_parameters(message.parameters))


def _from_contents(entry: pb.ModelInferRequest.InferInputTensor, shape: tuple[int, ...]) -> Tensor:
    field = CONTENTS.get(entry.datatype)
    if field is None:
        raise InvalidInput(
            f"tensor {entry.name!r}: {entry.datatype[:40]!r} has no typed contents; use raw_input_contents"
        )
    filled = [descriptor.name for descriptor, _ in entry.contents.ListFields()]
    if any(name != field for name in filled):
        raise InvalidInput(f"tensor {entry.name!r} is {entry.datatype}, so its contents belong in {field}")
    values = getattr(entry.contents, field)
    expected = int(np.prod(shape, dtype=object)) if shape else 1
    if len(values) != expected:
        raise InvalidInput(f"tensor {entry.name!r} has {len(values)} elements; its shape needs {expected}")
    if entry.datatype == BYTES:
        return Tensor(entry.name, BYTES, shape, list(values))
    try:
        array = np.array(values, DTYPES[entry.datatype])
    except OverflowError as error:
        raise InvalidInput(f"tensor {entry.name!r} holds values that do not fit {entry.datatype}") from error
    return Tensor(entry.name, entry.datatype, shape, array.reshape(shape))


def _from_parameters(parameters: Mapping[str, Any]) -> Parameters:
    if not parameters:
        return NO_PARAMETERS
    found = {}
    for key, value in parameters.items():
        choice = value.WhichOneof("parameter_choice")
        found[key] = None if choice is None else getattr(value, choice)
    return found


def render_message(response: InferResponse) -> pb.ModelInferResponse:
    """An answer over gRPC; always raw contents, the only form every client reads."""
    return pb.ModelInferResponse(
        model_name=response.model_name,
        model_version=response.model_version,
        id=response.id,
        outputs=[
            pb.ModelInferResponse.InferOutputTensor(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
            for tensor in response.outputs
        ],
        raw_output_contents=[encode_raw(tensor) for tensor in response.outputs],
    )
