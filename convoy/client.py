"""A typed client of Convoy over HTTP (`http://host:8000`) or gRPC (`grpc://host:8001`), with connections kept open.

with Client("grpc://127.0.0.1:8001") as client:
    answer = client.classify("resnet20-cifar10", Path("cat.png"))
    print(answer.predictions[0].classes[0].label)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from convoy.errors import DeadlineExceeded, InvalidInput, NotReady
from convoy.open_inference import InferRequest, InferResponse, RequestedOutput
from convoy.tensors import Tensor
from convoy.transports import GrpcTransport, HttpTransport, Transport, error_of, unreadable

__all__ = ["Class", "Classification", "Client", "Image", "Member", "ModelSummary", "Prediction", "error_of"]

Image = bytes | Path


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
class Member:
    """Who took part in the answer of an ensemble or cascade; `outcome` is answered, late or failed."""

    model: str
    version: str
    images: int
    outcome: str
    ms: float
    engine_ms: float
    reason: str = ""


@dataclass(frozen=True)
class Classification:
    """A server's answer: a prediction per image, and its own times in milliseconds."""

    id: str
    model: str
    version: str
    predictions: tuple[Prediction, ...]
    timings_ms: Mapping[str, float]
    batch_size: int
    members: tuple[Member, ...] = ()


@dataclass(frozen=True)
class ModelSummary:
    """A served model."""

    name: str
    version: str
    dataset: str
    classes: int


class Client:
    """Asks one server. Errors are those of `convoy.errors`; use it in a `with` block or close it. Threads may share it."""

    def __init__(self, url: str = "http://127.0.0.1:8000") -> None:
        self._url = url
        self._transport = _transport(url)

    def classify(
        self, model: str, images: Image | Sequence[Image], top_k: int = 5, timeout: float = 30.0
    ) -> Classification:
        """Classifies encoded images, given as bytes or files, in at most `timeout` seconds. Raises ConvoyError."""
        listed = [images] if isinstance(images, (bytes, Path)) else images
        contents = [image if isinstance(image, bytes) else image.read_bytes() for image in listed]
        document = self._transport.classify(model, contents, top_k, timeout)
        try:
            return _classification(document)
        except (KeyError, TypeError) as error:
            raise unreadable(self._url, error) from error

    def infer(
        self,
        model: str,
        inputs: Sequence[Tensor],
        outputs: Sequence[RequestedOutput] = (),
        timeout: float = 30.0,
        version: str = "",
    ) -> InferResponse:
        """Runs a model on tensors in at most `timeout` seconds. No outputs: all of them. Raises ConvoyError."""
        request = InferRequest(tuple(inputs), tuple(outputs), binary_output=True, model=model, version=version)
        return self._transport.infer(request, timeout)

    def models(self, timeout: float = 30.0) -> list[ModelSummary]:
        """The models served. Raises ConvoyError."""
        document = self._transport.models(timeout)
        try:
            return [
                ModelSummary(one["name"], one["version"], one["dataset"], one["classes"]) for one in document["models"]
            ]
        except (KeyError, TypeError) as error:
            raise unreadable(self._url, error) from error

    def ready(self, timeout: float = 5.0) -> bool:
        """Whether the server takes requests; one that is not there or does not answer in time does not."""
        try:
            self._transport.check_ready(timeout)
        except (NotReady, DeadlineExceeded):
            return False
        return True

    def close(self) -> None:
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _transport(url: str) -> Transport:
    scheme, _, target = url.partition("://")
    if scheme == "grpc":
        return GrpcTransport(target)
    if scheme in ("http", "https"):
        return HttpTransport(url)
    raise InvalidInput(f"{url!r} must begin with http://, https:// or grpc://")


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
        tuple(Member(**member) for member in document.get("members", ())),
    )
