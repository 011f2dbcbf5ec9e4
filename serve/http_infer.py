"""Infer over HTTP."""

from __future__ import annotations

from functools import partial

from convoy.errors import InvalidInput
from convoy.open_inference import HEADER_LENGTH, InferRequest, parse_request, raw_request, render_response
from serve.callers import arm_headers, http_caller
from serve.catalog import Endpoint
from serve.dataplane import DataPlane, Trace, Watch
from serve.http_answers import JSON, Headers
from serve.http_body import Headers as RequestHeaders
from serve.http_body import Scope
from serve.infer import infer, request_terms
from serve.timeouts import http_terms

HEADER_LENGTH_NAME = HEADER_LENGTH.encode()
OCTETS = b"application/octet-stream"


async def infer_http(
    plane: DataPlane,
    endpoint: Endpoint,
    scope: Scope,
    headers: RequestHeaders,
    body: bytes,
    trace: Trace,
    watch: Watch,
) -> tuple[bytes, Headers]:
    """Body and headers of the answer. Raises ConvoyError."""
    request = _parse(endpoint, headers, body)
    terms = http_terms(plane, headers, trace)
    if request.parameters:
        terms = request_terms(plane, request, trace, terms)
    identifier = request.id or plane.new_id()
    caller = partial(http_caller, identifier, scope, headers, request.parameters)
    response = await infer(plane, endpoint, request, caller, terms, trace, watch)
    document, json_length = render_response(response, request)
    extra = arm_headers(identifier, trace)
    if json_length is None:
        return document, [(b"content-type", JSON), *extra]
    return document, [(b"content-type", OCTETS), (HEADER_LENGTH_NAME, b"%d" % json_length), *extra]


def _parse(endpoint: Endpoint, headers: RequestHeaders, body: bytes) -> InferRequest:
    declared = headers.get(HEADER_LENGTH_NAME)
    if declared is None:
        return parse_request(body, None)
    if not declared.isdigit():
        raise InvalidInput(f"{HEADER_LENGTH} must be a whole number of at least 0")
    length = int(declared)
    if length == 0 and endpoint.form == "image":
        return raw_request(endpoint.input.name, body)
    return parse_request(body, length)
