"""Answers over HTTP: the classification document and errors, each with a fresh header list."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from convoy.errors import ConvoyError, Overloaded
from serve.batcher import Answer
from serve.catalog import Endpoint
from serve.dataplane import Trace
from serve.http_body import Send
from serve.ranking import TOP, rank

Headers = list[tuple[bytes, bytes]]

JSON = b"application/json"


def top_classes(answers: Sequence[Answer], top_k: int) -> list[tuple[list[int], list[float]]]:
    """Per row the best class indices and their probabilities."""
    rows: list[tuple[list[int], list[float]]] = []
    for answer in answers:
        if top_k <= TOP:
            ranking, start, stop = answer.run.ranking, answer.start, answer.stop
        else:
            ranking, start, stop = rank(np.asarray(answer.logits), top_k), 0, answer.stop - answer.start
        pairs = zip(ranking.classes[start:stop], ranking.probabilities[start:stop], strict=True)
        rows.extend((classes[:top_k], probabilities[:top_k]) for classes, probabilities in pairs)
    return rows


def classification(
    endpoint: Endpoint, identifier: str, answers: Sequence[Answer], top_k: int, trace: Trace, now: float
) -> bytes:
    """The JSON document of a classify answer."""
    labels = endpoint.manifest.labels
    document: dict[str, Any] = {
        "id": identifier,
        "model": endpoint.name,
        "version": endpoint.version,
        "predictions": [
            {
                "classes": [
                    {"index": index, "label": labels[index], "probability": probability}
                    for index, probability in zip(classes, probabilities, strict=True)
                ]
            }
            for classes, probabilities in top_classes(answers, top_k)
        ],
        "timings_ms": timings(trace, now),
        "batch_size": trace.batch_size,
    }
    if trace.arm:
        document["arm"] = trace.arm
    return orjson.dumps(document)


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


async def send_error(send: Send, error: ConvoyError) -> None:
    """The error as `{"error": …}`; a connection whose body was not read to its end is closed."""
    headers: Headers = [(b"content-type", JSON)]
    if isinstance(error, Overloaded):
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after_s))))
    if error.http_status == 413:
        headers.append((b"connection", b"close"))
    await send_answer(send, error.http_status, orjson.dumps({"error": str(error)}), headers)
