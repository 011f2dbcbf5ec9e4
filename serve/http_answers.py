"""Answers over HTTP: the classification document and errors, each with a fresh header list."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Sequence
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from convoy.errors import ConvoyError, Overloaded, Unauthenticated
from serve.batcher import Answer
from serve.catalog import Endpoint
from serve.energy import energy
from serve.http_body import Receive, Send, UnreadBody
from serve.options import MAX_ID, ClassifyOptions
from serve.predictions import Classes, best_classes
from serve.timeline import Trace

Headers = list[tuple[bytes, bytes]]

JSON = b"application/json"
REQUEST_ID = b"x-request-id"
LINGER_SECONDS = 5.0


def classification(
    endpoint: Endpoint, identifier: str, answers: Sequence[Answer], options: ClassifyOptions, trace: Trace, now: float
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
        document |= energy(endpoint, answers, trace)
    if answers[0].parts:
        document["members"] = [part.document() for part in answers[0].parts]
    return orjson.dumps(document)


def prediction(endpoint: Endpoint, options: ClassifyOptions, row: Classes) -> dict[str, Any]:
    """One image's classes as they stand in an answer."""
    labels, pairs = endpoint.labels, zip(*row, strict=True)
    if not options.labels:
        return {"classes": [{"index": index, "probability": probability} for index, probability in pairs]}
    return {
        "classes": [
            {"index": index, "label": labels[index], "probability": probability} for index, probability in pairs
        ]
    }


def timings(trace: Trace, now: float) -> dict[str, float]:
    """Milliseconds by stage up to `now`; the stages add up to the total."""
    return {
        "receive": round((trace.received - trace.started) * 1000, 3),
        "decode": round((trace.decoded - trace.received) * 1000, 3),
        "queue": round((trace.batched - trace.decoded) * 1000, 3),
        "run": round((trace.ran - trace.batched) * 1000, 3),
        "post": round((now - trace.ran) * 1000, 3),
        "total": round((now - trace.started) * 1000, 3),
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
