"""The Open Inference Protocol's infer over HTTP: parses the body to an `InferRequest` and renders the response."""

from __future__ import annotations

from functools import partial

from convoy.errors import InvalidInput
from convoy.wire.oip_http import HEADER_LENGTH, InferRequest, parse_request, raw_request, render_response
from serve.api.infer import apply_parameters, check_input, infer, most_values
from serve.api.model_metadata import wire_input
from serve.gateway.dataplane import DataPlane
from serve.gateway.endpoints import Endpoint
from serve.gateway.request_context import RequestContext
from serve.http.body import Headers as RequestHeaders
from serve.http.body import whole_number
from serve.http.classify import request_id
from serve.http.json_documents import ENVELOPE_VALUES, LARGEST_VALUES, SMALL_BYTES, parse_bounded
from serve.http.responses import HEADER_LENGTH_NAME, REQUEST_ID, Headers, infer_headers


async def infer_http(
    plane: DataPlane, endpoint: Endpoint, context: RequestContext, headers: RequestHeaders, body: bytes
) -> tuple[bytes, Headers]:
    """Body and headers of the answer. Raises ConvoyError."""
    request = await _parse(endpoint, headers, body)
    id_headers = [(REQUEST_ID, request_id(headers).encode())] if REQUEST_ID in headers else []
    context.request_id = request.id or (id_headers[0][1].decode() if id_headers else "")
    apply_parameters(plane, context, request)
    response = await infer(plane, endpoint, context, request)
    document, json_length = render_response(response, request)
    return document, [*infer_headers(json_length), *id_headers]


async def _parse(endpoint: Endpoint, headers: RequestHeaders, body: bytes) -> InferRequest:
    declared = headers.get(HEADER_LENGTH_NAME)
    if declared is None:
        return await _parse_json(endpoint, body, None)
    length = whole_number(declared)
    if length is None:
        raise InvalidInput(f"{HEADER_LENGTH} must be a whole number of at least 0")
    if length > 0:
        return await _parse_json(endpoint, body, length)
    tensor = wire_input(endpoint)
    return raw_request(tensor.name, body, tensor.datatype, (1, *tensor.shape[1:]))


async def _parse_json(endpoint: Endpoint, body: bytes, header_length: int | None) -> InferRequest:
    """Parses a request. `header_length`: bytes of JSON at the start of the body; None if the whole body is JSON."""
    check = partial(check_input, endpoint)
    if (len(body) if header_length is None else header_length) <= SMALL_BYTES:
        return parse_request(body, header_length, check=check)
    parse = partial(parse_request, body, header_length, check=check)
    most = most_values(endpoint, LARGEST_VALUES) + ENVELOPE_VALUES
    return await parse_bounded(parse, memoryview(body)[:header_length], most)
