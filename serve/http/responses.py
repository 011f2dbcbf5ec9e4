"""HTTP responses: the classification document and errors.

Each response gets a new list of headers, because middleware appends to it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from convoy.errors import ConvoyError, InvalidInput, Overloaded, Unauthenticated, UnsupportedEncoding
from convoy.wire.oip_http import HEADER_LENGTH
from serve.api.answer_energy import answer_energy
from serve.api.classification import Classes, best_classes
from serve.api.classify_params import MAX_ID, ClassifyParams
from serve.batching.results import Answer
from serve.gateway.endpoints import Endpoint
from serve.http.body import Send, read_body
from serve.http.http1.head import join_fields
from serve.http.json_documents import ENVELOPE_VALUES, load, parse_bounded
from serve.telemetry.request_events import FAULT
from serve.telemetry.request_timings import RequestTimings, stages_ms

Headers = list[tuple[bytes, bytes]]

STATUS_LINES = {status.value: b"HTTP/1.1 %d %s\r\n" % (status, status.phrase.encode()) for status in HTTPStatus}
UNSAFE = re.compile(
    rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"
)  # with CR and LF, what a header must not hold (RFC 9110, section 5.5)
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"
JSON = b"application/json"
OCTETS = b"application/octet-stream"
CLOSE = (b"connection", b"close")
FAULT_BODY = b'{"error":"%s"}' % FAULT.encode()
FAULT_HEADERS = [(b"content-type", JSON), (b"content-length", b"%d" % len(FAULT_BODY)), CLOSE]
REQUEST_ID = b"x-request-id"
HEADER_LENGTH_NAME = HEADER_LENGTH.encode()
LINGER_SECONDS = 5.0  # closing while the client still sends would reset the connection before it reads the response


def classification(
    endpoint: Endpoint,
    identifier: str,
    answers: Sequence[Answer],
    options: ClassifyParams,
    timings: RequestTimings,
    now: float,
) -> bytes:
    """The JSON document of a classify response. `now`: monotonic seconds, the end of the last stage."""
    document: dict[str, Any] = {
        "id": identifier,
        "model": endpoint.name,
        "version": endpoint.version,
        "predictions": [prediction(endpoint, options, row) for row in best_classes(answers, options)],
        "timings_ms": stages_ms(timings, now),
        "batch_size": timings.batch_size,
    }
    if timings.arm:
        document["arm"] = timings.arm
    if timings.cached:
        document["cached"] = True
    if options.energy:
        document |= answer_energy(endpoint, answers, timings)
    if answers[0].members:
        document["members"] = [member.document() for member in answers[0].members]
    return orjson.dumps(document)


def prediction(endpoint: Endpoint, options: ClassifyParams, row: Classes) -> dict[str, Any]:
    """The classes of an image in the format of the response, most probable first."""
    labels, pairs = endpoint.labels, zip(*row, strict=True)
    if not options.labels:
        return {"classes": [{"index": index, "probability": probability} for index, probability in pairs]}
    return {
        "classes": [
            {"index": index, "label": labels[index], "probability": probability} for index, probability in pairs
        ]
    }


def response_head(status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The head of an HTTP/1.1 response, to its empty line. Raises ValueError for a header that could add another one."""
    lines = [b"%b: %b\r\n" % header for header in headers]
    text = b"".join(lines)
    # One look at the whole head takes less time than a look at every name and value.
    if UNSAFE.search(text) or text.count(b"\r") != len(lines) or text.count(b"\n") != len(lines):
        raise ValueError("a response header has characters that a header cannot hold")
    return b"%b%b\r\n" % (STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status, text)


def infer_headers(json_bytes: int | None) -> Headers:
    """Headers of an infer response. `json_bytes`: of its JSON part, None if binary data do not follow it."""
    if json_bytes is None:
        return [(b"content-type", JSON)]
    return [(b"content-type", OCTETS), (HEADER_LENGTH_NAME, b"%d" % json_bytes)]


def error_response(error: ConvoyError, request_id: str = "") -> tuple[int, Headers, bytes]:
    """Status, headers and body `{"error": …}` of an error, without its length."""
    headers: Headers = [(b"content-type", JSON), *id_header(request_id), *error_headers(error)]
    return error.http_status, headers, orjson.dumps({"error": str(error)})


async def send_error(send: Send, error: ConvoyError, request_id: str = "") -> None:
    """Sends an error as an ASGI application."""
    status, headers, body = error_response(error, request_id)
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def whole_error(error: ConvoyError, request_id: str) -> bytes:
    """The response to an error, serialised as HTTP/1.1 (RFC 9112)."""
    status, headers, body = error_response(error, request_id)
    return response_head(status, [*headers, (b"content-length", b"%d" % len(body))]) + body


def id_header(request_id: str) -> Headers:
    """The x-request-id header, if a header can hold the id: in the Open Inference Protocol an id may be any text."""
    fits = 0 < len(request_id) <= MAX_ID and request_id.isascii() and request_id.isprintable()
    return [(REQUEST_ID, request_id.encode())] if fits else []


def closing_error(status: int, reason: bytes) -> bytes:
    """A complete HTTP/1.1 error response that ends the connection. `reason` goes into JSON unescaped."""
    body = b'{"error":"' + reason + b'"}'
    head = b"%scontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
    return head % (STATUS_LINES[status], len(body)) + body


def error_headers(error: ConvoyError) -> Headers:
    """The headers of an error (RFC 9110): retry-after (10.2.3), accept-encoding (12.5.3) or www-authenticate (11.6.1)."""
    if isinstance(error, Overloaded):
        return [(b"retry-after", b"%d" % max(1, math.ceil(error.retry_after_s)))]
    if isinstance(error, UnsupportedEncoding):
        return [(b"accept-encoding", b"gzip, deflate")]
    return [(b"www-authenticate", b"Bearer")] if isinstance(error, Unauthenticated) else []


def answer(document: Any, status: int = 200) -> Response:
    """A response with the document as JSON."""
    return Response(orjson.dumps(document), status, media_type="application/json")


async def read_json(request: Request, limit: int, most_values: int = ENVELOPE_VALUES) -> Any:
    """Parses a JSON body of at most `limit` bytes and about `most_values` values; {} for an empty body.

    Raises InvalidInput or TooLarge.
    """
    body = await read_body(join_fields(request.scope["headers"]), request.receive, limit)
    return await parse_bounded(partial(load, body or b"{}"), body, most_values)


async def read_document(request: Request, limit: int) -> dict[str, Any]:
    """Parses a JSON body that must be an object. Raises InvalidInput or TooLarge."""
    document = await read_json(request, limit)
    if not isinstance(document, dict):
        raise InvalidInput("the body must be a JSON object")
    return document
