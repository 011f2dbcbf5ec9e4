"""How a client reaches its server: HTTP or gRPC, each with connections kept open and errors back in the tree."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol
from urllib.parse import quote

import grpc
import httpx
import orjson
from google.protobuf.json_format import MessageToDict

from convoy import errors
from convoy.errors import ConvoyError, DeadlineExceeded, InvalidInput, NotReady, Overloaded
from convoy.open_inference import HEADER_LENGTH, InferRequest, InferResponse
from convoy.open_inference_client import parse_response, render_request
from convoy.protos import classifier_pb2, classifier_pb2_grpc

Document = Mapping[str, Any]

MAX_MESSAGE = 128 * 2**20
TIMEOUT_HEADER = "x-request-timeout-ms"
RETRY_AFTER = "retry-after"


class Transport(Protocol):
    """What a client needs of its server, within a timeout in seconds. Everything raises ConvoyError."""

    def classify(self, model: str, images: Sequence[bytes], top_k: int, timeout: float) -> Document: ...

    def infer(self, request: InferRequest, timeout: float) -> InferResponse: ...

    def models(self, timeout: float) -> Document: ...

    def check_ready(self, timeout: float) -> None: ...

    def close(self) -> None: ...


class HttpTransport:
    """The classify API and the Open Inference Protocol over HTTP."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url)
        self._url = url

    def classify(self, model: str, images: Sequence[bytes], top_k: int, timeout: float) -> Document:
        path = f"/v1/models/{quote(model, safe='')}/classify?top_k={top_k}"
        if len(images) == 1:
            return self._document(self._send("POST", path, timeout, content=images[0]))
        files = [("image", (str(number), image)) for number, image in enumerate(images)]
        return self._document(self._send("POST", path, timeout, files=files))

    def infer(self, request: InferRequest, timeout: float) -> InferResponse:
        body, length = render_request(request)
        headers = {} if length is None else {HEADER_LENGTH: str(length)}
        version = f"/versions/{quote(request.version, safe='')}" if request.version else ""
        path = f"/v2/models/{quote(request.model, safe='')}{version}/infer"
        response = self._send("POST", path, timeout, headers, content=body)
        declared = response.headers.get(HEADER_LENGTH)
        try:
            return parse_response(response.content, None if declared is None else int(declared))
        except (InvalidInput, ValueError) as error:
            raise unreadable(self._url, error) from error

    def models(self, timeout: float) -> Document:
        return self._document(self._send("GET", "/v1/models", timeout))

    def check_ready(self, timeout: float) -> None:
        self._send("GET", "/v2/health/ready", timeout)

    def close(self) -> None:
        self._client.close()

    def _send(
        self, method: str, path: str, timeout: float, headers: Mapping[str, str] | None = None, **content: Any
    ) -> httpx.Response:
        told = {TIMEOUT_HEADER: f"{timeout * 1000:.0f}"} | dict(headers or {})
        try:
            # The server keeps the deadline; a second more lets it say so.
            response = self._client.request(method, path, headers=told, timeout=timeout + 1, **content)
        except httpx.TimeoutException as error:
            raise DeadlineExceeded(f"{self._url} did not answer in {timeout} s") from error
        except httpx.TransportError as error:
            raise NotReady(f"no server at {self._url} ({error}); start one with: convoy up") from error
        if response.is_success:
            return response
        text = _error_text(response)
        raise error_of("http_status", response.status_code, text, _seconds(response.headers.get(RETRY_AFTER)))

    def _document(self, response: httpx.Response) -> Document:
        try:
            document: Document = orjson.loads(response.content)
        except orjson.JSONDecodeError as error:
            raise unreadable(self._url, error) from error
        return document


class GrpcTransport:
    """convoy.v1.Classifier and the Open Inference Protocol over gRPC."""

    def __init__(self, target: str) -> None:
        options = [("grpc.max_send_message_length", MAX_MESSAGE), ("grpc.max_receive_message_length", MAX_MESSAGE)]
        self._target = target
        self._channel = grpc.insecure_channel(target, options)
        self._classifier = classifier_pb2_grpc.ClassifierStub(self._channel)  # type: ignore[no-untyped-call]

    # tritonclient registers the same protobuf package as ours, so ours is loaded only for those who infer.
    @cached_property
    def _inference(self) -> Any:
        from convoy.protos import open_inference_pb2_grpc

        return open_inference_pb2_grpc.GRPCInferenceServiceStub(self._channel)  # type: ignore[no-untyped-call]

    def classify(self, model: str, images: Sequence[bytes], top_k: int, timeout: float) -> Document:
        request = classifier_pb2.ClassifyRequest(model=model, images=images, top_k=top_k)
        message = self._call(self._classifier.Classify, request, timeout)
        return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)

    def infer(self, request: InferRequest, timeout: float) -> InferResponse:
        from convoy.open_inference_grpc import parse_response_message, render_request_message

        message = self._call(self._inference.ModelInfer, render_request_message(request), timeout)
        try:
            return parse_response_message(message)
        except InvalidInput as error:
            raise unreadable(self._target, error) from error

    def models(self, timeout: float) -> Document:
        raise InvalidInput("the list of models is asked over HTTP; give an http:// address")

    def check_ready(self, timeout: float) -> None:
        from convoy.protos import open_inference_pb2

        if not self._call(self._inference.ServerReady, open_inference_pb2.ServerReadyRequest(), timeout).ready:
            raise NotReady(f"{self._target} is not ready")

    def close(self) -> None:
        self._channel.close()

    def _call(self, method: Callable[..., Any], request: Any, timeout: float) -> Any:
        try:
            return method(request, timeout=timeout)
        except grpc.RpcError as error:
            trailing = error.trailing_metadata() or ()
            retry_after = next((one.value for one in trailing if one.key == RETRY_AFTER), None)
            raise error_of("grpc_code", error.code().name, error.details() or "", _seconds(retry_after)) from error


def error_of(attribute: str, value: object, message: str, retry_after_s: float | None = None) -> ConvoyError:
    """The error of the tree whose `http_status` or `grpc_code` is `value`; where several are, the first of the diagram.

    Only an overload says when to come back, which tells it from the others of its status.
    """
    kinds: list[type[ConvoyError]] = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, ConvoyError) and getattr(kind, attribute) == value
    ]
    if Overloaded in kinds:
        if retry_after_s is not None:
            return Overloaded(message, retry_after_s)
        kinds.remove(Overloaded)
    return kinds[0](message) if kinds else ConvoyError(message)


def unreadable(server: str, error: Exception) -> ConvoyError:
    """An answer that is not the protocol's."""
    return ConvoyError(f"the answer of {server} cannot be read: {error}")


def _error_text(response: httpx.Response) -> str:
    try:
        document = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        document = None
    text = document.get("error") if isinstance(document, dict) else None
    return str(text or f"{response.status_code} {response.reason_phrase}")


def _seconds(text: str | bytes | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
