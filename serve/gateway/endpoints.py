"""What a gateway serves: endpoints by name, replaced as a whole when any of them changes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from convoy.errors import NotFound, unknown
from models.artifact import Artifact, Manifest
from models.engines.engine import TensorSpec
from serve.batching.line import RequestQueue
from serve.batching.results import Answer
from serve.config.ensembles import EnsembleConfig
from serve.config.schema import ModelConfig
from serve.ensembles.factory import CompositionConfig
from serve.ensembles.multi_view import Views
from serve.executors.base import Executor, Form
from serve.executors.lazy import LazyExecutor
from serve.executors.local import LocalExecutor
from serve.images.decode_pool import Decodes
from serve.telemetry.recorder import ModelRecorder

Rows = NDArray[Any] | Views
Connect = Callable[[ModelConfig, Artifact], Awaitable[Executor]]


class ImageDecoder(Decodes, Protocol):
    """Makes the rows of a line from images: `decode` each, `stack` those of a request. Thread-safe."""

    def is_small(self, image: Any, /) -> bool: ...

    def stack(self, images: Sequence[Any], /) -> Rows: ...


@dataclass(frozen=True)
class Endpoint:
    """One name that clients call, with its own line and recorder."""

    name: str
    version: str
    form: Form
    labels: tuple[str, ...]
    input: TensorSpec
    most_images: int  # or rows, per request
    decoder: ImageDecoder
    batcher: RequestQueue
    recorder: ModelRecorder


@dataclass(frozen=True)
class ModelEndpoint(Endpoint):
    """A model in one of its two forms."""

    config: ModelConfig
    manifest: Manifest
    executor: Executor


@dataclass(frozen=True)
class ComposedEndpoint(Endpoint):
    """An ensemble or cascade; `members` are those of all its stages."""

    config: CompositionConfig
    stages: tuple[tuple[str, EnsembleConfig], ...]  # an ensemble is its own only stage
    members: tuple[ModelEndpoint, ...]

    def is_made_of(
        self, config: CompositionConfig, stages: tuple[tuple[str, EnsembleConfig], ...], served: Mapping[str, Endpoint]
    ) -> bool:
        """Whether it would be the same one if it were made anew."""
        same = self.config == config and self.stages == stages
        return same and all(served.get(member.name) is member for member in self.members)


class Endpoints:
    """An immutable table of endpoints, with errors that help."""

    def __init__(self, endpoints: Iterable[Endpoint] = ()) -> None:
        self.by_name: Mapping[str, Endpoint] = {endpoint.name: endpoint for endpoint in endpoints}

    def find(self, name: str, version: str = "") -> Endpoint:
        """Raises NotFound that names the nearest known model or the version that is there."""
        endpoint = self.by_name.get(name)
        if endpoint is None:
            raise unknown("model", name, sorted(self.by_name))
        if version and version != endpoint.version:
            raise NotFound(f"model {name!r} has no version {version[:50]!r}; the version here is {endpoint.version!r}")
        return endpoint


def engine_work(endpoint: Endpoint, answers: Sequence[Answer]) -> list[tuple[ModelRecorder, float]]:
    """Seconds of engine time that answers took, with the recorder of each model whose engine it was."""
    if isinstance(endpoint, ComposedEndpoint):
        recorders = {member.name: member.recorder for member in endpoint.members}
        return [(recorders[part.model], part.engine_seconds) for answer in answers for part in answer.parts]
    return [(endpoint.recorder, sum(answer.engine_seconds for answer in answers))]


def waiting_rows(endpoint: Endpoint) -> int:
    """Rows in the endpoint's line, or in those of its members."""
    if isinstance(endpoint, ComposedEndpoint):
        return sum(member.batcher.waiting_rows for member in endpoint.members)
    return endpoint.batcher.waiting_rows


def trouble_of(endpoint: Endpoint) -> str:
    """Why a model that is there cannot answer; empty when it can, be it after a load."""
    executor = endpoint.executor if isinstance(endpoint, ModelEndpoint) else None
    return executor.trouble if isinstance(executor, LocalExecutor | LazyExecutor) else ""
