"""Inference messages of the Open Inference Protocol (v2), and their form over HTTP: JSON, binary or mixed.

This is the server's side: it parses requests and renders responses. `convoy.wire.oip_http_client` is the client's side.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import orjson

from convoy.errors import InvalidInput
from convoy.wire.tensors import (
    BYTES,
    COPIED_BYTES,
    DTYPES,
    Buffer,
    CheckTensor,
    Tensor,
    accept_any,
    check_name,
    check_shape,
    decode_checked,
    decode_json,
    decode_raw,
    encode_raw,
    layout_of,
    to_json,
)

HEADER_LENGTH = "inference-header-content-length"
Parameters = Mapping[str, Any]

NO_PARAMETERS: Parameters = {}
PARAMETER_TYPES = frozenset({str, int, float, bool})
SHARED_MEMORY = "shared_memory_region"
NO_DATA = memoryview(b"")
KEPT_HEADS = 256  # parsed JSON parts that are cached
KEPT_HEAD_BYTES = 1024  # a longer JSON part holds data, which differ per request
MAX_TENSORS = 256  # inputs or outputs of a request
MAX_PARAMETERS = 256


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """A requested output. `binary` None: the request's default form; `classes` > 0: as classification."""

    name: str
    binary: bool | None = None
    classes: int = 0


@dataclass(slots=True)
class InferRequest:
    """An inference request over HTTP or gRPC. Empty `outputs` mean all; an empty version is the server's choice."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[RequestedOutput, ...] = ()
    id: str = ""
    parameters: Parameters = field(default_factory=dict)
    binary_output: bool = False
    model: str = ""
    version: str = ""


@dataclass(slots=True)
class InferResponse:
    """A response over HTTP or gRPC."""

    model_name: str
    model_version: str
    id: str
    outputs: tuple[Tensor, ...]
    parameters: Parameters = field(default_factory=dict)


def parse_request(
    body: Buffer, header_length: int | None, model: str = "", version: str = "", check: CheckTensor = accept_any
) -> InferRequest:
    """Parses a request. Unknown keys are ignored.

    Args:
        body: the complete body, decompressed.
        header_length: length of the JSON part when binary data follow, from the header of that name.
        model: the model's name, from the path.
        version: its version, from the path.
        check: may refuse a tensor by its name, datatype and shape, before its elements are read. It is not called where
            elements cost nothing: numbers in binary form, and JSON data of a cached small head.

    Raises:
        InvalidInput: the text names the tensor and the fault.
    """
    if header_length is not None and header_length <= min(KEPT_HEAD_BYTES, len(body)):
        head = _known_head(bytes(body[:header_length]))
        if head.plain is not None and head.plain.size == len(body) - header_length <= COPIED_BYTES:
            inputs: tuple[Tensor, ...] = (_view(head.plain, body[header_length:]),)
        else:
            inputs = _bind("input", head.inputs, memoryview(body)[header_length:], check)
    else:
        text, tail = _split("request", body, header_length)
        head = _read_head(bytes(text), check)
        inputs = _bind("input", head.inputs, tail, check)
    return InferRequest(inputs, head.outputs, head.id, head.parameters, head.binary_output, model, version)


class _Entry(NamedTuple):
    """A tensor's JSON entry: its data, or the size of its binary data in bytes."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    size: int | None
    tensor: Tensor | None


class _Plain(NamedTuple):
    """An input whose binary data need no check but that of their size."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    size: int
    dtype: np.dtype[Any]


class _Head(NamedTuple):
    """The JSON part of a request, validated. `plain`: its only input, if that is plain; most requests have one such input."""

    inputs: tuple[_Entry, ...]
    plain: _Plain | None
    outputs: tuple[RequestedOutput, ...]
    id: str
    parameters: Parameters
    binary_output: bool


def _read_head(text: bytes, check: CheckTensor = accept_any) -> _Head:
    document = _load("request", text)
    parameters = _parameters(document)
    request_id = document.get("id", "")
    if not isinstance(request_id, str):
        raise InvalidInput("id must be a string")
    entries = _read_entries("input", document.get("inputs"), check)
    return _Head(
        entries,
        _plain(entries[0]) if len(entries) == 1 else None,
        _parse_outputs(document.get("outputs")),
        request_id,
        parameters,
        _flag(parameters, "binary_data_output") or False,
    )


def _plain(entry: _Entry) -> _Plain | None:
    dtype = DTYPES.get(entry.datatype)
    if dtype is None or entry.datatype == "BOOL" or entry.size != math.prod(entry.shape) * dtype.itemsize:
        return None
    return _Plain(entry.name, entry.datatype, entry.shape, entry.size, dtype)


def _view(plain: _Plain, data: Buffer) -> Tensor:
    # A copy: it is aligned, which engines may need, and of bytes it is cheap.
    return Tensor(plain.name, plain.datatype, plain.shape, np.frombuffer(bytes(data), plain.dtype).reshape(plain.shape))


_known_head = lru_cache(KEPT_HEADS)(_read_head)  # requests of one client usually differ only in their binary data


def raw_request(name: str, body: bytes, datatype: str = BYTES, shape: tuple[int, ...] = (1,)) -> InferRequest:
    """A raw binary request (header length 0): the body is the data of the model's only input. Raises InvalidInput.

    `shape` is the input's with a batch of 1. One dimension may be -1: it follows from the body's length. For BYTES the body is
    the single element, without its length prefix.
    """
    if datatype == BYTES:
        if any(size not in (1, -1) for size in shape):
            raise InvalidInput(f"tensor {name!r} of shape {list(shape)} is more than the one element of a raw request")
        return InferRequest((Tensor(name, BYTES, (1,) * len(shape), [body]),), binary_output=True)
    sizes = list(shape)
    if sizes.count(-1) > 1:
        raise InvalidInput(f"tensor {name!r} of shape {sizes} cannot be sent raw: only one dimension may vary")
    if -1 in sizes:
        row = layout_of(name, datatype).itemsize * -math.prod(sizes)
        sizes[sizes.index(-1)] = len(body) // row if row else 0
    return InferRequest((decode_raw(name, datatype, sizes, body),), binary_output=True)


def split_body(what: str, body: Buffer, header_length: int | None) -> tuple[dict[str, Any], memoryview]:
    """The JSON document of a request or a response, and the binary data after it. Raises InvalidInput."""
    text, tail = _split(what, body, header_length)
    return _load(what, text), tail


def _split(what: str, body: Buffer, header_length: int | None) -> tuple[Buffer, memoryview]:
    if header_length is None:
        return body, NO_DATA
    if 0 <= header_length <= len(body):
        return body[:header_length], memoryview(body)[header_length:]
    raise InvalidInput(f"{HEADER_LENGTH} is {header_length}; the {what}'s body has {len(body)} bytes")


def _load(what: str, text: Buffer) -> dict[str, Any]:
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"the {what} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidInput(f"the {what} must be a JSON object")
    return document


def parse_tensors(kind: str, entries: Any, tail: memoryview) -> tuple[Tensor, ...]:
    """The inputs of a request or the outputs of a response; `tail` is their binary data. Raises InvalidInput."""
    return _bind(kind, _read_entries(kind, entries, accept_any), tail, accept_any)


def _read_entries(kind: str, entries: Any, check: CheckTensor) -> tuple[_Entry, ...]:
    if not isinstance(entries, list) or not entries:
        raise InvalidInput(f"{kind}s must be a list of at least one tensor")
    check_number(f"{kind}s", len(entries))
    read = tuple(_read_entry(kind, entry, check) for entry in entries)
    check_unique(kind, [entry.name for entry in read])
    return read


def _read_entry(kind: str, entry: Any, check: CheckTensor) -> _Entry:
    if not isinstance(entry, dict):
        raise InvalidInput(f"each {kind} must be an object")
    name, datatype, shape = check_name(entry.get("name")), entry.get("datatype"), entry.get("shape")
    if not isinstance(datatype, str) or not isinstance(shape, list):
        raise InvalidInput(f"tensor {name!r} needs datatype (text) and shape (list)")
    parameters = _parameters(entry)
    size = parameters.get("binary_data_size")
    if size is None:
        refuse_shared_memory(name, parameters)
        sizes = check_shape(name, shape)
        check(name, datatype, sizes)
        return _Entry(name, datatype, sizes, None, decode_json(name, datatype, sizes, entry.get("data")))
    if "data" in entry:
        raise InvalidInput(f"tensor {name!r} has both data and binary_data_size")
    if type(size) is not int or size < 0:
        raise InvalidInput(f"tensor {name!r}: binary_data_size must be a whole number of at least 0")
    return _Entry(name, datatype, check_shape(name, shape), size, None)


def _bind(kind: str, entries: tuple[_Entry, ...], tail: memoryview, check: CheckTensor) -> tuple[Tensor, ...]:
    """The tensors; those without JSON data get the next bytes of `tail`."""
    tensors = []
    start = 0
    for entry in entries:
        if entry.tensor is not None:
            tensors.append(entry.tensor)
            continue
        stop = start + (entry.size or 0)
        if stop > len(tail):
            raise InvalidInput(
                f"tensor {entry.name!r} says {entry.size} bytes; {len(tail) - start} are left in the body"
            )
        if entry.datatype == BYTES:
            check(entry.name, BYTES, entry.shape)
        tensors.append(decode_checked(entry.name, entry.datatype, entry.shape, tail[start:stop]))
        start = stop
    if start < len(tail):
        raise InvalidInput(f"{len(tail) - start} bytes are left after the last {kind}")
    return tuple(tensors)


def _parse_outputs(outputs: Any) -> tuple[RequestedOutput, ...]:
    if outputs is None:
        return ()
    if not isinstance(outputs, list):
        raise InvalidInput("outputs must be a list")
    check_number("outputs", len(outputs))
    parsed = []
    for entry in outputs:
        if not isinstance(entry, dict):
            raise InvalidInput("each requested output must be an object")
        name, parameters = check_name(entry.get("name")), _parameters(entry)
        refuse_shared_memory(name, parameters)
        parsed.append(RequestedOutput(name, _flag(parameters, "binary_data"), class_count(parameters)))
    check_unique("output", [output.name for output in parsed])
    return tuple(parsed)


def class_count(parameters: Parameters) -> int:
    """K of the classification extension; 0 when it is not requested. Raises InvalidInput."""
    classes = parameters.get("classification", 0)
    if type(classes) is not int or classes < 0:
        raise InvalidInput("classification must be a whole number of at least 1")
    return classes


def check_number(kind: str, number: int, most: int = MAX_TENSORS) -> None:
    """Raises InvalidInput for too many tensors or parameters: each takes time of the event loop."""
    if number > most:
        raise InvalidInput(f"the request has {number} {kind}; {most} are allowed")


def check_unique(kind: str, names: list[str]) -> None:
    """Raises InvalidInput when two tensors have the same name."""
    if len(names) > 1 and len(set(names)) < len(names):
        ((repeated, _),) = Counter(names).most_common(1)
        raise InvalidInput(f"{kind} {repeated!r} is named more than once")


def refuse_shared_memory(name: str, parameters: Parameters) -> None:
    """Raises InvalidInput for a tensor in shared memory: that extension is not supported."""
    if SHARED_MEMORY in parameters:
        raise InvalidInput(f"tensor {name!r}: shared memory is not offered; send the data")


def _parameters(document: Mapping[str, Any]) -> Parameters:
    parameters = document.get("parameters")
    if parameters is None:
        return NO_PARAMETERS
    if not isinstance(parameters, dict):
        raise InvalidInput("parameters must be an object")
    check_number("parameters", len(parameters), MAX_PARAMETERS)
    for key, value in parameters.items():
        if type(value) not in PARAMETER_TYPES:
            raise InvalidInput(f"parameter {key[:60]!r} must be text, a number, true or false")
        if key.startswith("triton_"):
            raise InvalidInput(f"parameter {key[:60]!r} is reserved")
    return parameters


def _flag(parameters: Parameters, name: str) -> bool | None:
    value = parameters.get(name)
    if value is not None and not isinstance(value, bool):
        raise InvalidInput(f"parameter {name} must be true or false")
    return value


def render_response(response: InferResponse, request: InferRequest) -> tuple[bytes, int | None]:
    """The body of a response, and the length of its JSON part when binary data follow.

    Raises InvalidInput when the request asks for JSON and JSON cannot represent the values.
    """
    if len(response.outputs) == 1 and not (request.outputs or response.id or response.parameters):
        (tensor,) = response.outputs
        if request.binary_output:  # most of the responses to binary tensors
            raw = encode_raw(tensor)
            head = _binary_head(
                response.model_name, response.model_version, tensor.name, tensor.datatype, tensor.shape, len(raw)
            )
            return head + raw, len(head)
    forms = {output.name: output.binary for output in request.outputs}
    outputs = []
    tail: list[bytes] = []
    for tensor in response.outputs:
        binary = forms.get(tensor.name)
        outputs.append(render_tensor(tensor, request.binary_output if binary is None else binary, tail))
    document: dict[str, Any] = {
        "model_name": response.model_name,
        "model_version": response.model_version,
        "outputs": outputs,
    }
    if response.id:
        document["id"] = response.id
    if response.parameters:
        document["parameters"] = response.parameters
    head = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    return (b"".join((head, *tail)), len(head)) if tail else (head, None)


@lru_cache(KEPT_HEADS)
def _binary_head(model: str, version: str, name: str, datatype: str, shape: tuple[int, ...], size: int) -> bytes:
    """The JSON part of a response that has a single binary output, and neither id nor parameters."""
    output = {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}
    return orjson.dumps({"model_name": model, "model_version": version, "outputs": [output]})


def render_tensor(tensor: Tensor, binary: bool, tail: list[bytes]) -> dict[str, Any]:
    """A tensor's JSON entry; binary data are appended to `tail`. Raises InvalidInput for values that JSON cannot represent."""
    entry: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
    if binary:
        raw = encode_raw(tensor)
        entry["parameters"] = {"binary_data_size": len(raw)}
        tail.append(raw)
    else:
        entry["data"] = to_json(tensor)
    return entry
