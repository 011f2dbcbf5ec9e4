"""A typed client of Convoy over HTTP (`http://host:8000`) or gRPC (`grpc://host:8001`), with connections kept open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import grpc
import httpx
from google.protobuf.json_format import MessageToDict

from convoy import errors
from convoy.errors import ConvoyError, DeadlineExceeded, InvalidInput, NotReady
from convoy.protos import classifier_pb2 as pb
from convoy.protos import classifier_pb2_grpc

Image = bytes | Path
MAX_MESSAGE = 128 * 2**20


@dataclass(frozen=True)
class Class:
    """One class of a prediction."""

    index: int
    label: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """The best classes of one image, best first."""

    classes: tuple[Class, ...]


@dataclass(frozen=True)
class Classification:
    """A server's answer: a prediction per image, and its own times in milliseconds."""

    id: str
    model: str
    version: str
    predictions: tuple[Prediction, ...]
    timings_ms: Mapping[str, float]
    batch_size: int


@dataclass(frozen=True)
class ModelSummary:
    """A served model."""

    name: str
    version: str
    dataset: str
    classes: int


class Transport(Protocol):
    """How a client reaches its server."""

    def classify(self, model: str, images: Sequence[bytes], top_k: int, timeout: float) -> Mapping[str, Any]: ...

    def models(self) -> list[ModelSummary]: ...

    def close(self) -> None: ...


class Client:
    """Asks one server. Errors are those of `convoy.errors`; use it in a `with` block or close it."""

    def __init__(self, url: str = "http://127.0.0.1:8000") -> None:
        scheme, _, target = url.partition("://")
        if scheme == "grpc":
            self._transport: Transport = GrpcTransport(target)
        elif scheme in ("http", "https"):
            self._transport = HttpTransport(url)
        else:
            raise InvalidInput(f"{url!r} must begin with http://, https:// or grpc://")

    def classify(
        self, model: str, images: Image | Sequence[Image], top_k: int = 5, timeout: float = 30.0
    ) -> Classification:
        """Classifies encoded images, given as bytes or files. Raises ConvoyError."""
        listed = [images] if isinstance(images, (bytes, Path)) else images
        contents = [image if isinstance(image, bytes) else image.read_bytes() for image in listed]
        return _classification(self._transport.classify(model, contents, top_k, timeout))

    def models(self) -> list[ModelSummary]:
        """The models served. Raises ConvoyError."""
        return self._transport.models()

    def close(self) -> None:
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class HttpTransport:
    """The classify API over HTTP."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=30.0)
        self._url = url

    def classify(self, model: str, images: Sequence[bytes], top_k: int, timeout: float) -> Mapping[str, Any]:
        headers = {"x-request-timeout-ms": f"{timeout * 1000:.0f}"}
        path = f"/v1/models/{model}/classify"
        if len(images) == 1:
            request = self._client.build_request(
                "POST", path, content=images[0], params={"top_k": top_k}, headers=headers, timeout=timeout + 1
            )
        else:
            files = [("image", (str(number), image)) for number, image in enumerate(images)]
            request = self._client.build_request(
                "POST", path, files=files, params={"top_k": top_k}, headers=headers, timeout=timeout + 1
            )
        return self._send(request)

    def models(self) -> list[ModelSummary]:
        document = self._send(self._client.build_request("GET", "/v1/models"))
        return [ModelSummary(one["name"], one["version"], one["dataset"], one["classes"]) for one in document["models"]]

    def close(self) -> None:
        self._client.close()

    def _send(self, request: httpx.Request) -> Mapping[str, Any]:
        try:
            response = self._client.send(request)
        except httpx.TimeoutException as error:
            raise DeadlineExceeded(f"{self._url} did not answer in time") from error
        except httpx.TransportError as error:
            raise NotReady(f"no server at {self._url} ({error}); start one with: convoy up") from error
        document: Mapping[str, Any] = response.json()
        if response.is_error:
            raise error_of("http_status", response.status_code, document.get("error", response.reason_phrase))
        return document


class GrpcTransport:
    """convoy.v1.Classifier over gRPC."""

    def __init__(self, target: str) -> None:
        options = [("grpc.max_send_message_length", MAX_MESSAGE), ("grpc.max_receive_message_length", MAX_MESSAGE)]
        self._channel = grpc.insecure_channel(target, options)
        self._stub = classifier_pb2_grpc.ClassifierStub(self._channel)  # type: ignore[no-untyped-call]

    def classify(self, model: str, images: Sequence[bytes], top_k: int, timeout: float) -> Mapping[str, Any]:
        request = pb.ClassifyRequest(model=model, images=images, top_k=top_k)
        try:
            message = self._stub.Classify(request, timeout=timeout)
        except grpc.RpcError as error:
            raise error_of("grpc_code", error.code().name, error.details() or "") from error
        return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)

    def models(self) -> list[ModelSummary]:
        raise InvalidInput("the list of models is asked over HTTP; give an http:// address")

    def close(self) -> None:
        self._channel.close()


def error_of(attribute: str, value: object, message: str) -> ConvoyError:
    """The most specific error of the tree whose HTTP status or gRPC code is `value`."""
    for name in errors.__dict__:
        kind = getattr(errors, name)
        if isinstance(kind, type) and issubclass(kind, ConvoyError) and getattr(kind, attribute) == value:
            return kind(message)
    return ConvoyError(message)


def _classification(document: Mapping[str, Any]) -> Classification:
    predictions = tuple(
        Prediction(tuple(Class(one["index"], one["label"], one["probability"]) for one in entry["classes"]))
        for entry in document["predictions"]
    )
    return Classification(
        document["id"],
        document["model"],
        document["version"],
        predictions,
        document["timings_ms"],
        document["batch_size"],
    )
