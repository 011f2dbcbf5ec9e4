"""OpenTelemetry spans of requests and their stages, exported to a collector over OTLP/HTTP. Needs the extra `tracing`.

Spans are made from the timings of a finished request, so a request in progress carries no tracing context. The header
`traceparent` (W3C Trace Context) decides whether a request is sampled; without it, the configured share is sampled.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from typing import Any

from convoy.errors import ConfigError
from serve.config.schema import Tracing
from serve.telemetry.request_events import Observer, RequestEvent
from serve.telemetry.request_timings import STAGES

SERVICE = "convoy"


def request_tracer(settings: Tracing) -> tuple[Observer, Callable[[], None]]:
    """The observer that exports spans, and the function that flushes and stops it. Raises ConfigError without the extra."""
    try:
        trace_api = importlib.import_module("opentelemetry.trace")
        propagation = importlib.import_module("opentelemetry.trace.propagation.tracecontext")
        sdk = importlib.import_module("opentelemetry.sdk.trace")
        sampling = importlib.import_module("opentelemetry.sdk.trace.sampling")
        export = importlib.import_module("opentelemetry.sdk.trace.export")
        resources = importlib.import_module("opentelemetry.sdk.resources")
        otlp = importlib.import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    except ImportError as error:
        raise ConfigError(f"tracing needs the extra: pip install 'convoy-serve[tracing]' ({error})") from error
    sampler = sampling.ParentBased(sampling.TraceIdRatioBased(settings.sample))
    provider = sdk.TracerProvider(sampler=sampler, resource=resources.Resource.create({"service.name": SERVICE}))
    provider.add_span_processor(export.BatchSpanProcessor(otlp.OTLPSpanExporter(endpoint=settings.endpoint)))
    tracer, propagator = provider.get_tracer("convoy"), propagation.TraceContextTextMapPropagator()
    offset = time.time() - time.monotonic()  # timings are monotonic, spans are wall clock

    def nanoseconds(moment: float) -> int:
        return int((moment + offset) * 1e9)

    def observe(finished: RequestEvent) -> None:
        parent = propagator.extract({"traceparent": finished.traceparent} if finished.traceparent else {})
        timings = finished.timings
        span = tracer.start_span(
            f"{finished.protocol} {finished.model}",
            parent,
            kind=trace_api.SpanKind.SERVER,
            start_time=nanoseconds(timings.started),
            attributes=_attributes(finished),
        )
        if span.is_recording() and finished.stages_ms():
            context = trace_api.set_span_in_context(span)
            moment = timings.started
            for name, seconds in zip(STAGES, timings.stages(finished.ended), strict=True):
                stage = tracer.start_span(name, context, start_time=nanoseconds(moment))
                moment += seconds
                stage.end(nanoseconds(moment))
        if finished.error:
            span.set_status(trace_api.StatusCode.ERROR, finished.error)
        span.end(nanoseconds(finished.ended))

    return observe, provider.shutdown


def _attributes(finished: RequestEvent) -> dict[str, Any]:
    return {
        "convoy.request_id": finished.timings.id,
        "convoy.model": finished.model,
        "convoy.version": finished.version,
        "convoy.code": finished.code,
        "convoy.batch_size": finished.timings.batch_size,
        "convoy.cached": finished.timings.cached,
    }
