"""A real server on both protocols; the name of a model selects its behaviour.

Any model returns its inputs; a model named after an error class raises it; `garbage` answers outside the protocol.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import grpc
import orjson

from convoy import errors
from convoy.errors import ConvoyError, Overloaded
from convoy.protos import classifier_pb2, classifier_pb2_grpc, open_inference_pb2, open_inference_pb2_grpc
from convoy.wire.oip_grpc import parse_message, render_message
from convoy.wire.oip_http import HEADER_LENGTH, InferRequest, InferResponse, parse_request, render_response

RETRY_AFTER_S = 7.0


@dataclass
class Server:
    """The URLs of the server, its readiness, and the HTTP connections it has received."""

    http: str = ""
    grpc: str = ""
    is_ready: bool = True
    connections: set[Any] = field(default_factory=set)
    refusals: int = 0  # number of further calls of the model `flaky` to refuse
    ids: list[str] = field(default_factory=list)  # request ids of the calls of `flaky`


def fail(model: str) -> None:
    """Raises the error that the model is named after."""
    kind = getattr(errors, model, None)
    if kind is Overloaded:
        raise Overloaded("full", RETRY_AFTER_S)
    if kind is not None:
        raise kind("as asked")


def classify(server: Server, model: str, images: int, id: str) -> dict[str, Any]:
    fail(model)
    if model == "flaky":
        server.ids.append(id)
        server.refusals -= 1
        fail("NotReady" if server.refusals >= 0 else model)
    best = {"classes": [{"index": 3, "label": "cat", "probability": 0.75}]}
    return {
        "id": id,
        "model": model,
        "version": "1",
        "predictions": [best] * images,
        "timings_ms": {"total": 1.5},
        "batch_size": images,
    }


def infer(request: InferRequest) -> InferResponse:
    fail(request.model)
    return InferResponse(request.model, request.version or "1", request.id, request.inputs)


def make_handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path == "/v1/models":
                summary = {"name": "m", "version": "1", "dataset": "mnist", "classes": 10}
                self.answer(200, orjson.dumps({"models": [summary]}))
            else:
                self.answer(200 if server.is_ready else 503, b"{}")

        def do_POST(self) -> None:
            server.connections.add(self.client_address)
            body = self.rfile.read(int(self.headers["content-length"]))
            try:
                self.answer(200, *self.route([unquote(part) for part in urlsplit(self.path).path.split("/")], body))
            except ConvoyError as error:
                extra = {"retry-after": f"{error.retry_after_s:.0f}"} if isinstance(error, Overloaded) else {}
                self.answer(error.http_status, orjson.dumps({"error": str(error)}), extra)

        def route(self, path: list[str], body: bytes) -> tuple[bytes, dict[str, str]]:
            model = path[3]
            if model == "garbage":
                return b"<html>", {}
            if path[1] == "v1":
                multipart = self.headers.get("content-type", "").startswith("multipart/")
                images = body.count(b"filename=") if multipart else 1
                query = dict(parse_qsl(urlsplit(self.path).query))
                return orjson.dumps(classify(server, model, images, query["id"])), {}
            declared = self.headers[HEADER_LENGTH]
            version = path[5] if path[4] == "versions" else ""
            request = parse_request(body, None if declared is None else int(declared), model, version)
            answer, length = render_response(infer(request), request)
            return answer, {} if length is None else {HEADER_LENGTH: str(length)}

        def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in ({"content-length": str(len(body))} | (headers or {})).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    return Handler


class Classifier(classifier_pb2_grpc.ClassifierServicer):
    """The classify API."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def Classify(self, request: classifier_pb2.ClassifyRequest, context: Any) -> classifier_pb2.ClassifyResponse:  # noqa: N802
        try:
            return classifier_pb2.ClassifyResponse(
                **classify(self.server, request.model, len(request.images), request.id)
            )
        except ConvoyError as error:
            abort(context, error)
            raise


class Inference(open_inference_pb2_grpc.GRPCInferenceServiceServicer):
    """The Open Inference Protocol."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def ModelInfer(  # noqa: N802
        self, request: open_inference_pb2.ModelInferRequest, context: Any
    ) -> open_inference_pb2.ModelInferResponse:
        if request.model_name == "garbage":
            return open_inference_pb2.ModelInferResponse(raw_output_contents=[b"x"])
        try:
            return render_message(infer(parse_message(request)))
        except ConvoyError as error:
            abort(context, error)
            raise

    def ServerReady(  # noqa: N802
        self, request: open_inference_pb2.ServerReadyRequest, context: Any
    ) -> open_inference_pb2.ServerReadyResponse:
        return open_inference_pb2.ServerReadyResponse(ready=self.server.is_ready)

    def RepositoryIndex(  # noqa: N802
        self, request: open_inference_pb2.RepositoryIndexRequest, context: Any
    ) -> open_inference_pb2.RepositoryIndexResponse:
        return open_inference_pb2.RepositoryIndexResponse(models=[{"name": "m"}, {"name": "m-tensor"}])

    def ModelMetadata(  # noqa: N802
        self, request: open_inference_pb2.ModelMetadataRequest, context: Any
    ) -> open_inference_pb2.ModelMetadataResponse:
        datatype = "FP32" if request.name == "m-tensor" else "BYTES"
        return open_inference_pb2.ModelMetadataResponse(
            name=request.name,
            versions=["1"],
            inputs=[{"name": "x", "datatype": datatype}],
            outputs=[{"name": "y", "shape": [-1, 10]}],
            properties={"dataset": "mnist"},
        )


def abort(context: Any, error: ConvoyError) -> None:
    if isinstance(error, Overloaded):
        context.set_trailing_metadata((("retry-after", f"{error.retry_after_s:.0f}"),))
    context.abort(grpc.StatusCode[error.grpc_code], str(error))


class HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # the default of 5 may reset connections that arrive at the same time


@contextmanager
def running() -> Iterator[Server]:
    """Runs the server until the block ends."""
    server = Server()
    http = HttpServer(("127.0.0.1", 0), make_handler(server))
    thread = Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    rpc = grpc.server(ThreadPoolExecutor(4))
    classifier_pb2_grpc.add_ClassifierServicer_to_server(Classifier(server), rpc)  # type: ignore[no-untyped-call]
    open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Inference(server), rpc)  # type: ignore[no-untyped-call]
    server.http = f"http://127.0.0.1:{http.server_port}"
    server.grpc = f"grpc://127.0.0.1:{rpc.add_insecure_port('127.0.0.1:0')}"
    rpc.start()
    try:
        yield server
    finally:
        rpc.stop(None).wait()
        http.shutdown()
        thread.join()
        http.server_close()
