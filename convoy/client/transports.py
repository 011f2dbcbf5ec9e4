"""HTTP and gRPC transports of the blocking client, with persistent connections."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, Protocol

import grpc
import httpx

from convoy.client import grpc_requests, http_requests
from convoy.client.http_requests import HttpCall
from convoy.client.requests import ClassifyRequest
from convoy.client.responses import Document
from convoy.credentials import Credentials
from convoy.errors import InvalidInput, NotReady
from convoy.protos import classifier_pb2_grpc
from convoy.wire.oip_http import InferRequest, InferResponse

CONNECTIONS = httpx.Limits(max_connections=64, max_keepalive_connections=64)

GRPC_SCHEMES = ("grpc", "grpcs")


class Transport(Protocol):
    """The calls that a client needs. Timeouts are in seconds; every method raises ConvoyError."""

    def classify(self, request: ClassifyRequest, timeout: float) -> Document:
        """The server's answer to a classify request, as JSON would hold it."""
        ...

    def infer(self, request: InferRequest, timeout: float) -> InferResponse:
        """The answer to a request of the Open Inference Protocol."""
        ...

    def models(self, timeout: float) -> Document:
        """The models that serve and take images: `{"models": [...]}`."""
        ...

    def check_ready(self, timeout: float) -> None:
        """Raises NotReady unless the server takes requests."""
        ...

    def close(self) -> None:
        """Closes the connections."""
        ...


class HttpTransport:
    """The classify API and the Open Inference Protocol over HTTP."""

    def __init__(self, url: str, credentials: Credentials) -> None:
        self._client = http_requests.open_client(httpx.Client, url, credentials, limits=CONNECTIONS)
        self._url = url

    def classify(self, request: ClassifyRequest, timeout: float) -> Document:
        return http_requests.document_of(self._url, self._send(http_requests.classify_call(request), timeout))

    def infer(self, request: InferRequest, timeout: float) -> InferResponse:
        return http_requests.infer_response_of(self._url, self._send(http_requests.infer_call(request), timeout))

    def models(self, timeout: float) -> Document:
        return http_requests.document_of(self._url, self._send(http_requests.MODELS, timeout))

    def check_ready(self, timeout: float) -> None:
        http_requests.checked(self._send(http_requests.READY, timeout))

    def close(self) -> None:
        self._client.close()

    def _send(self, call: HttpCall, timeout: float) -> httpx.Response:
        try:
            return self._client.request(call.method, call.path, **call.options(timeout))
        except httpx.HTTPError as error:
            raise http_requests.failure_of(self._url, timeout, error) from error


class GrpcTransport:
    """convoy.v1.Classifier and the Open Inference Protocol over gRPC."""

    def __init__(self, target: str, credentials: Credentials, *, secure: bool) -> None:
        self._target = target
        options = grpc_requests.channel_options(target)
        if secure:
            self._channel = grpc.secure_channel(target, credentials.channel(), options)
        else:
            self._channel = grpc.insecure_channel(target, options)
        self._metadata = credentials.metadata()
        self._classifier = classifier_pb2_grpc.ClassifierStub(self._channel)  # type: ignore[no-untyped-call]

    # tritonclient registers the same protobuf package, and loading both fails: this one is loaded only by a call that needs it.
    @cached_property
    def _inference(self) -> Any:
        from convoy.protos import open_inference_pb2_grpc

        return open_inference_pb2_grpc.GRPCInferenceServiceStub(self._channel)  # type: ignore[no-untyped-call]

    def classify(self, request: ClassifyRequest, timeout: float) -> Document:
        message = self._call(self._classifier.Classify, grpc_requests.classify_message(request), timeout)
        return grpc_requests.document_of(message)

    def infer(self, request: InferRequest, timeout: float) -> InferResponse:
        from convoy.wire.oip_grpc import render_request_message

        message = self._call(self._inference.ModelInfer, render_request_message(request), timeout)
        return grpc_requests.infer_response_of(self._target, message)

    def models(self, timeout: float) -> Document:
        from convoy.protos import open_inference_pb2 as pb

        index = self._call(self._inference.RepositoryIndex, pb.RepositoryIndexRequest(ready=True), timeout)
        requests = [pb.ModelMetadataRequest(name=model.name) for model in index.models]
        known = [self._call(self._inference.ModelMetadata, request, timeout) for request in requests]
        return {"models": [grpc_requests.summary_of(model) for model in known if grpc_requests.takes_images(model)]}

    def check_ready(self, timeout: float) -> None:
        from convoy.protos import open_inference_pb2 as pb

        if not self._call(self._inference.ServerReady, pb.ServerReadyRequest(), timeout).ready:
            raise NotReady(f"{self._target} is not ready")

    def close(self) -> None:
        self._channel.close()

    def _call(self, method: Callable[..., Any], request: Any, timeout: float) -> Any:
        try:
            return method(request, timeout=timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise grpc_requests.failure_of(error) from error


def transport_for(url: str, credentials: Credentials) -> Transport:
    """The transport for an address, by its scheme. Raises InvalidInput for an unknown scheme."""
    scheme, target = check_scheme(url)
    if scheme in GRPC_SCHEMES:
        return GrpcTransport(target, credentials, secure=scheme == "grpcs")
    return HttpTransport(url, credentials)


def check_scheme(url: str) -> tuple[str, str]:
    """Scheme and the rest of an address. Raises InvalidInput for an unknown scheme."""
    scheme, _, target = url.partition("://")
    if scheme not in ("http", "https", *GRPC_SCHEMES):
        raise InvalidInput(f"{url!r} must begin with http://, https://, grpc:// or grpcs://")
    return scheme, target
