"""HTTP and gRPC transports of the asyncio client; see `convoy.client.transports`."""

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
from convoy.client.transports import CONNECTIONS, GRPC_SCHEMES, check_scheme
from convoy.credentials import Credentials
from convoy.errors import NotReady
from convoy.protos import classifier_pb2_grpc
from convoy.wire.oip_http import InferRequest, InferResponse


class AsyncTransport(Protocol):
    """The calls that a client needs. Timeouts are in seconds; every method raises ConvoyError."""

    async def classify(self, request: ClassifyRequest, timeout: float) -> Document:
        """The server's answer to a classify request, as JSON would hold it."""
        ...

    async def infer(self, request: InferRequest, timeout: float) -> InferResponse:
        """The answer to a request of the Open Inference Protocol."""
        ...

    async def models(self, timeout: float) -> Document:
        """The models that serve and take images: `{"models": [...]}`."""
        ...

    async def check_ready(self, timeout: float) -> None:
        """Raises NotReady unless the server takes requests."""
        ...

    async def close(self) -> None:
        """Closes the connections."""
        ...


class AsyncHttpTransport:
    """The classify API and the Open Inference Protocol over HTTP."""

    def __init__(self, url: str, credentials: Credentials) -> None:
        self._client = http_requests.open_client(httpx.AsyncClient, url, credentials, limits=CONNECTIONS)
        self._url = url

    async def classify(self, request: ClassifyRequest, timeout: float) -> Document:
        return http_requests.document_of(self._url, await self._send(http_requests.classify_call(request), timeout))

    async def infer(self, request: InferRequest, timeout: float) -> InferResponse:
        return http_requests.infer_response_of(self._url, await self._send(http_requests.infer_call(request), timeout))

    async def models(self, timeout: float) -> Document:
        return http_requests.document_of(self._url, await self._send(http_requests.MODELS, timeout))

    async def check_ready(self, timeout: float) -> None:
        http_requests.checked(await self._send(http_requests.READY, timeout))

    async def close(self) -> None:
        await self._client.aclose()

    async def _send(self, call: HttpCall, timeout: float) -> httpx.Response:
        try:
            return await self._client.request(call.method, call.path, **call.options(timeout))
        except httpx.HTTPError as error:
            raise http_requests.failure_of(self._url, timeout, error) from error


class AsyncGrpcTransport:
    """convoy.v1.Classifier and the Open Inference Protocol over gRPC."""

    def __init__(self, target: str, credentials: Credentials, *, secure: bool) -> None:
        self._target = target
        options = grpc_requests.channel_options(target)
        if secure:
            self._channel = grpc.aio.secure_channel(target, credentials.channel(), options)
        else:
            self._channel = grpc.aio.insecure_channel(target, options)
        self._metadata = credentials.metadata()
        self._classifier = classifier_pb2_grpc.ClassifierStub(self._channel)  # type: ignore[no-untyped-call]

    @cached_property
    def _inference(self) -> Any:
        from convoy.protos import open_inference_pb2_grpc

        return open_inference_pb2_grpc.GRPCInferenceServiceStub(self._channel)  # type: ignore[no-untyped-call]

    async def classify(self, request: ClassifyRequest, timeout: float) -> Document:
        message = await self._call(self._classifier.Classify, grpc_requests.classify_message(request), timeout)
        return grpc_requests.document_of(message)

    async def infer(self, request: InferRequest, timeout: float) -> InferResponse:
        from convoy.wire.oip_grpc import render_request_message

        message = await self._call(self._inference.ModelInfer, render_request_message(request), timeout)
        return grpc_requests.infer_response_of(self._target, message)

    async def models(self, timeout: float) -> Document:
        from convoy.protos import open_inference_pb2 as pb

        index = await self._call(self._inference.RepositoryIndex, pb.RepositoryIndexRequest(ready=True), timeout)
        requests = [pb.ModelMetadataRequest(name=model.name) for model in index.models]
        known = [await self._call(self._inference.ModelMetadata, request, timeout) for request in requests]
        return {"models": [grpc_requests.summary_of(model) for model in known if grpc_requests.takes_images(model)]}

    async def check_ready(self, timeout: float) -> None:
        from convoy.protos import open_inference_pb2 as pb

        if not (await self._call(self._inference.ServerReady, pb.ServerReadyRequest(), timeout)).ready:
            raise NotReady(f"{self._target} is not ready")

    async def close(self) -> None:
        await self._channel.close(None)

    async def _call(self, method: Callable[..., Any], request: Any, timeout: float) -> Any:
        try:
            return await method(request, timeout=timeout, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise grpc_requests.failure_of(error) from error


def async_transport_for(url: str, credentials: Credentials) -> AsyncTransport:
    """The transport for an address, by its scheme. Raises InvalidInput for an unknown scheme."""
    scheme, target = check_scheme(url)
    if scheme in GRPC_SCHEMES:
        return AsyncGrpcTransport(target, credentials, secure=scheme == "grpcs")
    return AsyncHttpTransport(url, credentials)
