"""Model statistics of the Open Inference Protocol over all gateways of the node, from the node's metrics files."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np

from convoy.wire import oip_metadata
from convoy.wire.oip_metadata import BatchSpans, InferSpans, ModelStatistics, Span
from serve.gateway.dataplane import DataPlane
from serve.gateway.endpoints import Endpoint
from serve.telemetry.definitions import (
    BATCHES,
    CACHE_HITS,
    CACHE_MISSES,
    CACHE_SECONDS,
    FAILED_SECONDS,
    LAST_RUN,
    REQUESTS,
    SAMPLES,
    SIZE_RUNS,
    SIZE_SECONDS,
    STAGE,
    TOTAL,
    Definition,
    Totals,
)
from serve.telemetry.exposition import total
from serve.telemetry.mmap_store import Values, read_files

ANSWERED = ("200", "OK")
NOTHING = np.zeros(1)
Labels = dict[str, str]


async def statistics(plane: DataPlane, folder: Path, name: str = "", version: str = "") -> oip_metadata.Document:
    """The statistics of one model, or of all where `name` is empty. Raises NotFound."""
    served = plane.endpoints.by_name
    endpoints = [plane.find(name, version)] if name else [served[key] for key in sorted(served)]
    for endpoint in endpoints:
        endpoint.recorder.flush()
    totals = await asyncio.to_thread(lambda: total(read_files(folder)))
    return oip_metadata.model_statistics(_endpoint_statistics(endpoint, totals) for endpoint in endpoints)


def _endpoint_statistics(endpoint: Endpoint, totals: Totals) -> ModelStatistics:
    labels = {"model": endpoint.name, "version": endpoint.version}
    receive, decode, queue, run, post, send = (
        _histogram(totals, STAGE, labels | {"stage": stage})
        for stage in ("receive", "decode", "queue", "run", "post", "send")
    )
    spans = InferSpans(
        success=_histogram(totals, TOTAL, labels),
        fail=Span(_failures(totals, labels), _ns(_values(totals, FAILED_SECONDS, labels)[0])),
        queue=queue,
        compute_input=Span(decode.count, receive.ns + decode.ns),
        compute_infer=run,
        compute_output=Span(post.count, post.ns + send.ns),
        cache_hit=Span(int(_values(totals, CACHE_HITS, labels)[0]), _ns(_values(totals, CACHE_SECONDS, labels)[0])),
        cache_miss=Span(int(_values(totals, CACHE_MISSES, labels)[0]), 0),
    )
    return ModelStatistics(
        name=endpoint.name,
        version=endpoint.version,
        last_inference=int(_values(totals, LAST_RUN, labels)[0] * 1000),
        inference_count=int(_values(totals, SAMPLES, labels)[0]),
        execution_count=int(_values(totals, BATCHES, labels)[0]),
        inference_stats=spans,
        batch_stats=tuple(_batches(totals, labels)),
    )


def _batches(totals: Totals, labels: Labels) -> list[BatchSpans]:
    """Spans by batch size. Only the run is timed: decoding and responses belong to requests, not to batches."""
    sizes = sorted(int(dict(key)["size"]) for key in totals[SIZE_RUNS.name] if labels.items() <= dict(key).items())
    batches = []
    for size in sizes:
        size_labels = labels | {"size": str(size)}
        count = int(_values(totals, SIZE_RUNS, size_labels)[0])
        run = Span(count, _ns(_values(totals, SIZE_SECONDS, size_labels)[0]))
        batches.append(BatchSpans(size, Span(count, 0), run, Span(count, 0)))
    return batches


def _failures(totals: Totals, labels: Labels) -> int:
    rows = ((dict(key), values) for key, values in totals[REQUESTS.name].items())
    return int(sum(values[0] for key, values in rows if labels.items() <= key.items() and key["code"] not in ANSWERED))


def _histogram(totals: Totals, definition: Definition, labels: Labels) -> Span:
    values = _values(totals, definition, labels)
    return Span(int(values[:-1].sum()), _ns(values[-1]))


def _values(totals: Totals, definition: Definition, labels: Labels) -> Values:
    return totals[definition.name].get(tuple(sorted(labels.items())), NOTHING)


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
