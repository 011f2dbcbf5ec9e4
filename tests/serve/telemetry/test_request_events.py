"""Observers of finished requests: JSON log lines, and spans that a real OTLP collector receives."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import grpc
import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from convoy.protos import classifier_pb2
from convoy.protos.classifier_pb2_grpc import ClassifierStub
from models.artifact import BUNDLED
from serve.config.schema import Logging, Tracing
from serve.telemetry.logs import log_request, open_log
from serve.telemetry.request_events import FIELDS, RequestEvent
from serve.telemetry.request_timings import STAGES, RequestTimings
from serve.telemetry.tracing import request_tracer
from tests.serve.listeners import Serving, StartGateway

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
SAMPLED = f"00-{TRACE_ID}-b7ad6b7169203331-01"
UNSAMPLED = f"00-{TRACE_ID}-b7ad6b7169203331-00"
IMAGE = (BUNDLED / "samples" / "mnist-0-7.png").read_bytes()


@pytest.fixture(scope="module")
def gateway(start_gateway: StartGateway) -> Iterator[Serving]:
    with start_gateway() as started:
        yield started


def classify(gateway: Serving, image: bytes = IMAGE, **headers: str) -> httpx.Response:
    url = f"{gateway.http}/v1/models/lenet5-mnist/classify"
    return httpx.post(url, content=image, headers={name.replace("_", "-"): value for name, value in headers.items()})


def test_the_access_log_has_a_json_line_for_each_request(gateway: Serving, tmp_path: Path) -> None:
    handler = open_log(tmp_path, "gateway", Logging(access=True))
    gateway.plane.observers.append(log_request)
    try:
        classify(gateway, x_request_id="mine", traceparent=SAMPLED)
        classify(gateway, b"no image", x_request_id="bad")
        with grpc.insecure_channel(gateway.grpc.removeprefix("grpc://")) as channel:
            stub = ClassifierStub(channel)  # type: ignore[no-untyped-call]
            stub.Classify(classifier_pb2.ClassifyRequest(model="lenet5-mnist", images=[IMAGE], id="over grpc"))
    finally:
        gateway.plane.observers.clear()
        logging.getLogger("convoy").removeHandler(handler)
        handler.close()
    (file,) = tmp_path.glob("gateway-*.jsonl")
    lines = {line["request_id"]: line for line in map(json.loads, file.read_text().splitlines())}
    answered, refused, over_grpc = lines["mine"], lines["bad"], lines["over grpc"]
    assert (answered["code"], answered["protocol"], answered["model"]) == ("200", "http", "lenet5-mnist")
    assert answered["trace_id"] == TRACE_ID
    assert set(answered["stages_ms"]) == set(STAGES)
    assert sum(answered["stages_ms"].values()) == pytest.approx(answered["total_ms"], abs=0.01)
    assert refused["code"] == "400"
    assert "image" in refused["error"]
    assert "stages_ms" not in refused
    assert (over_grpc["code"], over_grpc["protocol"]) == ("OK", "grpc")


def test_an_exception_is_logged_with_its_traceback(tmp_path: Path) -> None:
    handler = open_log(tmp_path, "gateway", Logging())
    log = logging.getLogger("convoy.test")
    try:
        try:
            raise ValueError("inside")
        except ValueError:
            log.exception("it broke", extra={FIELDS: {"request_id": "7"}})
    finally:
        logging.getLogger("convoy").removeHandler(handler)
        handler.close()
    (file,) = tmp_path.glob("*.jsonl")
    line = json.loads(file.read_text())
    assert (line["level"], line["message"], line["request_id"]) == ("ERROR", "it broke", "7")
    assert "ValueError: inside" in line["exception"]


@contextmanager
def collector() -> Iterator[tuple[str, list[Any]]]:
    """An OTLP collector over HTTP, and the spans that it received."""
    spans: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            message = ExportTraceServiceRequest.FromString(body)
            for resource in message.resource_spans:
                for scope in resource.scope_spans:
                    spans.extend(scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/traces", spans
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_traced_request_is_a_span_with_a_child_for_each_stage() -> None:
    trace = RequestTimings(10.0, 10.001, 10.003, 10.004, 10.009, 10.0095, batch_size=4, id="mine")
    with collector() as (endpoint, spans):
        observe, end = request_tracer(Tracing(endpoint=endpoint, sample=0))
        observe(RequestEvent("http", "m", "1", "200", trace, 10.01, SAMPLED))
        observe(RequestEvent("http", "m", "1", "200", trace, 10.01, UNSAMPLED))
        observe(RequestEvent("http", "m", "1", "200", trace, 10.01))
        observe(RequestEvent("grpc", "m", "1", "INTERNAL", trace, 10.01, SAMPLED, "broken"))
        end()
    requests = [span for span in spans if span.name not in STAGES]
    assert [span.name for span in requests] == ["http m", "grpc m"]
    answered, failed = requests
    assert answered.trace_id.hex() == TRACE_ID
    assert answered.parent_span_id.hex() == "b7ad6b7169203331"
    assert answered.end_time_unix_nano - answered.start_time_unix_nano == pytest.approx(10_000_000, abs=2000)
    attributes = {attribute.key: attribute.value for attribute in answered.attributes}
    assert attributes["convoy.request_id"].string_value == "mine"
    assert attributes["convoy.batch_size"].int_value == 4
    stages = [span for span in spans if span.name in STAGES]
    assert [span.name for span in stages] == list(STAGES)
    assert {span.parent_span_id for span in stages} == {answered.span_id}
    assert sum(span.end_time_unix_nano - span.start_time_unix_nano for span in stages) == pytest.approx(
        10_000_000, abs=20_000
    )
    assert failed.status.message == "broken"


def test_both_listeners_report_to_the_tracer(gateway: Serving) -> None:
    with collector() as (endpoint, spans):
        observe, end = request_tracer(Tracing(endpoint=endpoint, sample=0))
        gateway.plane.observers.append(observe)
        classify(gateway, x_request_id="traced", traceparent=SAMPLED)
        with grpc.insecure_channel(gateway.grpc.removeprefix("grpc://")) as channel:
            stub = ClassifierStub(channel)  # type: ignore[no-untyped-call]
            request = classifier_pb2.ClassifyRequest(model="lenet5-mnist", images=[IMAGE])
            stub.Classify(request, metadata=(("traceparent", SAMPLED),))
        gateway.plane.observers.clear()
        end()
    requests = {span.name: span for span in spans if span.name not in STAGES}
    assert set(requests) == {"http lenet5-mnist", "grpc lenet5-mnist"}
    assert {span.trace_id.hex() for span in requests.values()} == {TRACE_ID}
    assert len(spans) == 2 * (1 + len(STAGES))
