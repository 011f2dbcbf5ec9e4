"""Answers over HTTP: the classification document and errors, each with a fresh header list."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from convoy.errors import ConvoyError, InvalidInput, Overloaded, Unauthenticated
from serve.api.answer_energy import answer_energy
from serve.api.classification import Classes, best_classes
from serve.api.classify_params import MAX_ID, ClassifyParams
from serve.batching.results import Answer
from serve.gateway.endpoints import Endpoint
from serve.http.body import Receive, Send, UnreadBody, read_body
from serve.http.json_documents import ENVELOPE_VALUES, load, parse_bounded
from serve.telemetry.request_timings import RequestTimings, timings

Headers = list[tuple[bytes, bytes]]

JSON = b"application/json"
REQUEST_ID = b"x-request-id"
LINGER_SECONDS = 5.0


def classification(
    endpoint: Endpoint,
    identifier: str,
    answers: Sequence[Answer],
    options: ClassifyParams,
    trace: RequestTimings,
    now: float,
) -> bytes:
    """The JSON document of a classify answer."""
    document: dict[str, Any] = {
        "id": identifier,
        "model": endpoint.name,
        "version": endpoint.version,
        "predictions": [prediction(endpoint, options, row) for row in best_classes(answers, options)],
        "timings_ms": timings(trace, now),
        "batch_size": trace.batch_size,
    }
    if trace.arm:
        document["arm"] = trace.arm
    if trace.cached:
        document["cached"] = True
    if options.energy:
        document |= answer_energy(endpoint, answers, trace)
    if answers[0].members:
        document["members"] = [member.document() for member in answers[0].members]
    return orjson.dumps(document)


def prediction(endpoint: Endpoint, options: ClassifyParams, row: Classes) -> dict[str, Any]:
    """One image's classes as they stand in an answer."""
    labels, pairs = endpoint.labels, zip(*row, strict=True)
    if not options.labels:
        return {"classes": [{"index": index, "probability": probability} for index, probability in pairs]}
    return {
        "classes": [
            {"index": index, "label": labels[index], "probability": probability} for index, probability in pairs
        ]
    }


async def send_answer(send: Send, status: int, body: bytes, headers: Headers) -> None:
    """One whole response. `headers` must be a list of this response alone."""
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def send_error(send: Send, receive: Receive, error: ConvoyError, request_id: str = "") -> None:
    """The error as `{"error": …}`; a connection whose body was not read to its end is closed."""
    headers: Headers = [(b"content-type", JSON), *id_header(request_id), *error_headers(error)]
    body = orjson.dumps({"error": str(error)})
    if isinstance(error, UnreadBody):
        headers += [(b"connection", b"close"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": error.http_status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await _linger(receive)
        await send({"type": "http.response.body", "body": b""})
    else:
        await send_answer(send, error.http_status, body, headers)


def whole_error(error: ConvoyError, request_id: str) -> bytes:
    """As `send_error` sends it, as the bytes of HTTP/1.1."""
    body = orjson.dumps({"error": str(error)})
    headers = [(b"content-type", JSON), *id_header(request_id), *error_headers(error)]
    lines = b"".join([b"%s: %s\r\n" % header for header in headers])
    return b"%s%scontent-length: %d\r\n\r\n%s" % (STATUS_LINE[error.http_status], lines, len(body), body)


def id_header(request_id: str) -> Headers:
    """The id of a request, where a header can hold it: over the Open Inference Protocol it may be any text."""
    fits = 0 < len(request_id) <= MAX_ID and request_id.isascii() and request_id.isprintable()
    return [(REQUEST_ID, request_id.encode())] if fits else []


def error_headers(error: ConvoyError) -> Headers:
    """What an error says beside its text."""
    if isinstance(error, Overloaded):
        return [(b"retry-after", b"%d" % max(1, math.ceil(error.retry_after_s)))]
    return [(b"www-authenticate", b"Bearer")] if isinstance(error, Unauthenticated) else []


async def _linger(receive: Receive) -> None:
    """Lets the client finish its body, for a while: a close while it sends would reset the connection under the answer."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            while (await receive()).get("more_body"):
                pass


def answer(document: Any, status: int = 200) -> Response:
    """The document as JSON."""
    return Response(orjson.dumps(document), status, media_type="application/json")


async def read_json(request: Request, limit: int, most_values: int = ENVELOPE_VALUES) -> Any:
    """The JSON in a body of at most `limit` bytes, {} when there is no body. Raises InvalidInput or TooLarge."""
    body = await read_body(dict(request.scope["headers"]), request.receive, limit)
    return await parse_bounded(partial(load, body or b"{}"), body, most_values)


async def read_document(request: Request, limit: int) -> dict[str, Any]:
    """The JSON object in a body. Raises InvalidInput or TooLarge."""
    document = await read_json(request, limit)
    if not isinstance(document, dict):
        raise InvalidInput("the body must be a JSON object")
    return document
