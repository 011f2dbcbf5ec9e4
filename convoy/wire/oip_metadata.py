"""Metadata of a server and its models in the Open Inference Protocol, the same over HTTP and gRPC.

Each function makes one JSON document. `to_message` converts a document to the protobuf message with the same fields, so that
the two protocols cannot differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeVar

from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message

from convoy.wire.tensors import BYTES

Document = dict[str, Any]
State = Literal["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]
AnyMessage = TypeVar("AnyMessage", bound=Message)


@dataclass(frozen=True)
class ServerInfo:
    """A server. Only complete extensions are listed."""

    name: str
    version: str
    extensions: tuple[str, ...]


@dataclass(frozen=True)
class TensorInfo:
    """An input or output as clients see it; -1 is a variable size, and the batch dimension is part of the shape."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ModelInfo:
    """A model. `max_batch` 0: its tensors have no batch dimension."""

    name: str
    versions: tuple[str, ...]
    platform: str
    backend: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    max_batch: int
    properties: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Span:
    """A number of events, and their total duration in nanoseconds."""

    count: int = 0
    ns: int = 0


@dataclass(frozen=True)
class InferSpans:
    """Durations of requests by stage. Cache hits count only in `success` and `cache_hit`."""

    success: Span = Span()
    fail: Span = Span()
    queue: Span = Span()
    compute_input: Span = Span()
    compute_infer: Span = Span()
    compute_output: Span = Span()
    cache_hit: Span = Span()
    cache_miss: Span = Span()


@dataclass(frozen=True)
class BatchSpans:
    """Durations of batches of one size by stage."""

    batch_size: int
    compute_input: Span
    compute_infer: Span
    compute_output: Span


@dataclass(frozen=True)
class ModelStatistics:
    """A model version since it was loaded. Neither samples (`inference_count`) nor batches count cache hits."""

    name: str
    version: str
    last_inference: int  # milliseconds since the epoch, 0: none
    inference_count: int
    execution_count: int
    inference_stats: InferSpans
    batch_stats: tuple[BatchSpans, ...] = ()


@dataclass(frozen=True)
class RepositoryEntry:
    """A model version and its state; `reason` explains why it is not ready."""

    name: str
    version: str
    state: State
    reason: str = ""


def live(alive: bool) -> Document:
    """The body of `/v2/health/live`."""
    return {"live": alive}


def ready(is_ready: bool, error: str = "") -> Document:
    """The body of `/v2/health/ready`: KServe's client reads `ready`, the protocol's specification has `live`."""
    return {"ready": is_ready, "live": is_ready} | ({} if is_ready else {"error": error or "the server is not ready"})


def model_ready(name: str, is_ready: bool, error: str = "") -> Document:
    """The body of `/v2/models/{name}/ready`."""
    return {"name": name, "ready": is_ready} | ({} if is_ready else {"error": error or f"{name} is not ready"})


def server_metadata(server: ServerInfo) -> Document:
    """The body of `/v2`, and `inference.ServerMetadataResponse`."""
    return {"name": server.name, "version": server.version, "extensions": list(server.extensions)}


def model_metadata(model: ModelInfo) -> Document:
    """The body of `/v2/models/{name}`, and `inference.ModelMetadataResponse`."""
    document: Document = {
        "name": model.name,
        "versions": list(model.versions),
        "platform": model.platform,
        "inputs": [_tensor(tensor) for tensor in model.inputs],
        "outputs": [_tensor(tensor) for tensor in model.outputs],
    }
    return document | ({"properties": dict(model.properties)} if model.properties else {})


def model_config(model: ModelInfo) -> Document:
    """The body of `/v2/models/{name}/config`, and `inference.ModelConfig`: the part that Triton's tools read."""
    document: Document = {
        "name": model.name,
        "platform": model.platform,
        "backend": model.backend,
        "max_batch_size": model.max_batch,
        "input": [_config_tensor(tensor, model.max_batch > 0) for tensor in model.inputs],
        "output": [_config_tensor(tensor, model.max_batch > 0) for tensor in model.outputs],
        "model_transaction_policy": {"decoupled": False},
    }
    return document | ({"dynamic_batching": {"preferred_batch_size": [model.max_batch]}} if model.max_batch else {})


def model_statistics(models: Iterable[ModelStatistics]) -> Document:
    """The body of `/v2/models/stats`, and `inference.ModelStatisticsResponse`."""
    documents = [asdict(model) | {"batch_stats": [asdict(batch) for batch in model.batch_stats]} for model in models]
    return {"model_stats": documents}


def repository_index(entries: Iterable[RepositoryEntry]) -> list[Document]:
    """The body of `/v2/repository/index`; over gRPC it is the `models` of `inference.RepositoryIndexResponse`."""
    return [asdict(entry) for entry in entries]


def to_message(document: Document, message: AnyMessage) -> AnyMessage:
    """Fills the message with the document and returns it. An unknown field is a bug, and raises ParseError."""
    return ParseDict(document, message)


def _tensor(tensor: TensorInfo) -> Document:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}


def _config_tensor(tensor: TensorInfo, batched: bool) -> Document:
    kind = "STRING" if tensor.datatype == BYTES else tensor.datatype
    return {
        "name": tensor.name,
        "data_type": f"TYPE_{kind}",
        "dims": list(tensor.shape[1:] if batched else tensor.shape),
    }
