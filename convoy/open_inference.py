"""The Open Inference Protocol's inference messages as values, and their form over HTTP (JSON, binary, mixed)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from convoy.errors import InvalidInput
from convoy.tensors import BYTES, Buffer, Tensor, check_shape, decode_json, decode_raw, encode_raw, to_json

HEADER_LENGTH = "inference-header-content-length"
Parameters = Mapping[str, Any]

NO_PARAMETERS: Parameters = {}


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """An output a request asks for. `binary` None: as the request as a whole says; `classes` > 0: as classification."""

    name: str
    binary: bool | None = None
    classes: int = 0


@dataclass(frozen=True, slots=True)
class InferRequest:
    """An inference request of either protocol. No outputs: all of them."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[RequestedOutput, ...] = ()
    id: str = ""
    parameters: Parameters = field(default_factory=dict)
    binary_output: bool = False


@dataclass(frozen=True, slots=True)
class InferResponse:
    """An answer of either protocol."""

    model_name: str
    model_version: str
    id: str
    outputs: tuple[Tensor, ...]
    parameters: Parameters = field(default_factory=dict)


def parse_request(body: bytes, header_length: int | None) -> InferRequest:
    """A request over HTTP; `header_length` is the length of its JSON part when binary data follow. Raises InvalidInput."""
    if header_length is None:
        head, tail = body, memoryview(b"")
    elif 0 <= header_length <= len(body):
        view = memoryview(body)
        head, tail = body[:header_length], view[header_length:]
    else:
        raise InvalidInput(f"{HEADER_LENGTH} is {header_length}; the body has {len(body)} bytes")
    try:
        document = orjson.loads(head)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"the request is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidInput("the request must be a JSON object")
    parameters = _parameters(document)
    request_id = document.get("id", "")
    if not isinstance(request_id, str):
        raise InvalidInput("id must be a string")
    return InferRequest(
        inputs=_parse_inputs(document.get("inputs"), tail),
        outputs=_parse_outputs(document.get("outputs")),
        id=request_id,
        parameters=parameters,
        binary_output=_flag(parameters, "binary_data_output") or False,
    )


def raw_request(name: str, body: bytes) -> InferRequest:
    """A raw binary request (header length 0): the whole body is the one element of the model's single BYTES input."""
    return InferRequest((Tensor(name, BYTES, (1,), [body]),), binary_output=True)


def _parse_inputs(inputs: Any, tail: memoryview) -> tuple[Tensor, ...]:
    if not isinstance(inputs, list) or not inputs:
        raise InvalidInput("inputs must be a list of at least one tensor")
    tensors = []
    for entry in inputs:
        if not isinstance(entry, dict):
            raise InvalidInput("each input must be an object")
        name, datatype, shape = entry.get("name"), entry.get("datatype"), entry.get("shape")
        if not isinstance(name, str) or not isinstance(datatype, str) or not isinstance(shape, list):
            raise InvalidInput("each input needs name (text), datatype (text) and shape (list)")
        sizes = check_shape(name, shape)
        length = _parameters(entry).get("binary_data_size")
        if length is None:
            tensors.append(decode_json(name, datatype, sizes, entry.get("data")))
            continue
        if "data" in entry:
            raise InvalidInput(f"tensor {name!r} has both data and binary_data_size")
        raw, tail = _cut(name, length, tail)
        tensors.append(decode_raw(name, datatype, sizes, raw))
    if len(tail):
        raise InvalidInput(f"{len(tail)} bytes are left after the last tensor")
    return tuple(tensors)


def _cut(name: str, length: Any, tail: memoryview) -> tuple[Buffer, memoryview]:
    if type(length) is not int or length < 0:
        raise InvalidInput(f"tensor {name!r}: binary_data_size must be a whole number of at least 0")
    if length > len(tail):
        raise InvalidInput(f"tensor {name!r} says {length} bytes; {len(tail)} are left in the body")
    return tail[:length], tail[length:]


def _parse_outputs(outputs: Any) -> tuple[RequestedOutput, ...]:
    if outputs is None:
        return ()
    if not isinstance(outputs, list):
        raise InvalidInput("outputs must be a list")
    parsed = []
    for entry in outputs:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise InvalidInput("each requested output needs a name")
        parameters = _parameters(entry)
        parsed.append(RequestedOutput(entry["name"], _flag(parameters, "binary_data"), class_count(parameters)))
    return tuple(parsed)


def class_count(parameters: Parameters) -> int:
    """The classification extension's K, 0 when it is not asked for. Raises InvalidInput."""
    classes = parameters.get("classification", 0)
    if type(classes) is not int or classes < 0:
        raise InvalidInput("classification must be a whole number of at least 1")
    return classes


def _parameters(document: Mapping[str, Any]) -> Parameters:
    parameters = document.get("parameters")
    if parameters is None:
        return NO_PARAMETERS
    if not isinstance(parameters, dict):
        raise InvalidInput("parameters must be an object")
    for key in parameters:
        if key.startswith("triton_"):
            raise InvalidInput(f"parameter {key[:60]!r} is reserved")
    return parameters


def _flag(parameters: Parameters, name: str) -> bool | None:
    value = parameters.get(name)
    if value is not None and not isinstance(value, bool):
        raise InvalidInput(f"parameter {name} must be true or false")
    return value


def render_response(response: InferResponse, request: InferRequest) -> tuple[bytes, int | None]:
    """The body over HTTP, and the length of its JSON part when binary data follow."""
    binary = {output.name: output.binary for output in request.outputs}
    outputs, tail = [], []
    for tensor in response.outputs:
        entry: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
        wanted = binary.get(tensor.name)
        if request.binary_output if wanted is None else wanted:
            raw = encode_raw(tensor)
            entry["parameters"] = {"binary_data_size": len(raw)}
            tail.append(raw)
        else:
            entry["data"] = to_json(tensor)
        outputs.append(entry)
    document: dict[str, Any] = {
        "model_name": response.model_name,
        "model_version": response.model_version,
        "outputs": outputs,
    }
    if response.id:
        document["id"] = response.id
    if response.parameters:
        document["parameters"] = response.parameters
    head = orjson.dumps(document)
    return (b"".join((head, *tail)), len(head)) if tail else (head, None)
