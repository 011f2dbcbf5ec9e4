"""The client's side of the Open Inference Protocol over HTTP: renders requests, parses responses."""

from __future__ import annotations

from typing import Any

import orjson

from convoy.wire.oip_http import InferRequest, InferResponse, RequestedOutput, parse_tensors, render_tensor, split_body
from convoy.wire.tensors import Buffer


def render_request(request: InferRequest, binary: bool = True) -> tuple[bytes, int | None]:
    """The body, with inputs as binary data or as JSON, and the length of its JSON part when binary data follow.

    Raises InvalidInput for tensors that JSON cannot represent, when `binary` is false.
    """
    tail: list[bytes] = []
    document: dict[str, Any] = {"inputs": [render_tensor(tensor, binary, tail) for tensor in request.inputs]}
    if request.id:
        document["id"] = request.id
    if request.outputs:
        document["outputs"] = [_requested(output) for output in request.outputs]
    parameters = dict(request.parameters)
    if request.binary_output:
        parameters["binary_data_output"] = True
    if parameters:
        document["parameters"] = parameters
    head = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    return (b"".join((head, *tail)), len(head)) if tail else (head, None)


def _requested(output: RequestedOutput) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    if output.binary is not None:
        parameters["binary_data"] = output.binary
    if output.classes:
        parameters["classification"] = output.classes
    return {"name": output.name, "parameters": parameters}


def parse_response(body: Buffer, header_length: int | None) -> InferResponse:
    """Parses a response; `header_length` is the length of its JSON part when binary data follow. Raises InvalidInput."""
    document, tail = split_body("answer", body, header_length)
    return InferResponse(
        document.get("model_name") or "",
        document.get("model_version") or "",
        document.get("id") or "",
        parse_tensors("output", document.get("outputs"), tail),
        document.get("parameters") or {},
    )
