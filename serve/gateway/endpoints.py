"""The endpoints that a gateway serves: an immutable table, replaced when an endpoint changes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from numpy.typing import NDArray

from convoy.errors import NotFound, unknown
from models.artifact import Artifact, Manifest
from models.engines.engine import TensorSpec
from models.ensembles.views import count_looks
from serve.batching.line import MemberQueue, RequestQueue
from serve.batching.results import Answer
from serve.config.ensembles import EnsembleConfig
from serve.config.schema import ModelConfig
from serve.ensembles.factory import CompositionConfig
from serve.ensembles.multi_view import Views
from serve.executors.base import Executor, Form
from serve.gateway.request_context import RequestContext
from serve.gateway.response_cache import ResponseCache
from serve.images.decode_pool import Decodes
from serve.telemetry.recorder import ModelRecorder
from serve.telemetry.request_timings import RequestTimings

Rows = NDArray[Any] | Views
Work = Callable[
    ["Endpoint", RequestContext], Awaitable[list[Answer]]
]  # handles a request on the endpoint that answers it
Connect = Callable[[ModelConfig, Artifact], Awaitable[Executor]]

ENSEMBLE = "ensemble"


class ImageDecoder(Decodes, Protocol):
    """Makes rows for a queue: `decode` decodes an image, `stack` joins the images of a request. Thread-safe."""

    def stack(self, images: Sequence[Any], /) -> Rows:
        """Rows for the queue from the decoded images of a request, in their order."""
        ...


@dataclass(frozen=True)
class Endpoint:
    """A name that clients call, with a queue and a recorder.

    Models, compositions and experiments override these methods, so that listeners and API need not check the kind.
    """

    name: str
    version: str
    form: Form
    labels: tuple[str, ...]
    input: TensorSpec
    most_images: int  # images, or rows, per request
    decoder: ImageDecoder
    batcher: RequestQueue
    recorder: ModelRecorder

    has_own_queue: ClassVar[bool] = True  # False: `batcher` belongs to another endpoint
    needs_request_id: ClassVar[bool] = False  # feedback refers to requests by id
    # True: pixels of any size go through `decoder`, which resizes them for each member.
    resizes_tensors: ClassVar[bool] = False

    @property
    def targets(self) -> tuple[Endpoint, ...]:
        """The endpoints that may answer a request: this one, or an experiment's arms."""
        return (self,)

    def target_of(self, timings: RequestTimings) -> Endpoint:
        """The endpoint that answered a request."""
        return self

    def answer(self, context: RequestContext, work: Work) -> Awaitable[list[Answer]]:
        """Calls `work` with the endpoint that answers the request: this one, or an arm. Raises ConvoyError."""
        return work(self, context)

    def engine_work(self, answers: Sequence[Answer]) -> list[tuple[ModelRecorder, float]]:
        """The seconds of engine time of these answers, per model, with the model's recorder."""
        return [(self.recorder, sum(answer.engine_seconds for answer in answers))]

    @property
    def direct_queue(self) -> MemberQueue | None:
        """The queue whose answers to rows are this endpoint's answers; None if a request takes another way."""
        return None

    @property
    def waiting_rows(self) -> int:
        """Rows that wait for the engines of this endpoint, including rows of other endpoints."""
        return self.batcher.waiting_rows

    @property
    def trouble(self) -> str:
        """Why it cannot answer now; empty when it can, possibly after loading its engine."""
        return ""

    @property
    def platform(self) -> str:
        """The platform in Triton's model metadata."""
        return ENSEMBLE

    @property
    def backend(self) -> str:
        """The name of the engine; empty for an endpoint without an engine."""
        return ""

    @property
    def max_batch(self) -> int:
        """Rows of the largest batch."""
        return self.batcher.limits.batch

    def describe(self) -> dict[str, Any]:
        """A description of the endpoint as a JSON-ready document."""
        return {"name": self.name, "version": self.version, "classes": len(self.labels)}

    def make_cache(self) -> ResponseCache | None:
        """A new response cache; None if none is configured."""
        return None

    async def finish(self) -> None:
        """Refuses waiting requests, waits for running batches, and flushes the metrics."""
        await self.batcher.close()
        self.recorder.flush()

    def free(self) -> None:
        """Frees the engine, once `finish` has returned for every endpoint that uses it."""


@dataclass(frozen=True)
class ModelEndpoint(Endpoint):
    """A model in one of its two forms, image or tensor."""

    config: ModelConfig
    manifest: Manifest
    batcher: MemberQueue
    executor: Executor

    @property
    def direct_queue(self) -> MemberQueue:
        return self.batcher

    @property
    def trouble(self) -> str:
        return self.executor.trouble

    @property
    def platform(self) -> str:
        return self.executor.facts.platform

    @property
    def backend(self) -> str:
        return self.executor.facts.engine

    @property
    def max_batch(self) -> int:
        """Rows of the largest batch; the configured limit until the engine has been loaded and measured."""
        if not self.executor.measured:
            return self.config.max_batch
        return self.batcher.limits.batch

    def describe(self) -> dict[str, Any]:
        manifest, facts, steps = self.manifest, self.executor.facts, self.manifest.preprocessing
        return super().describe() | {
            "architecture": manifest.architecture,
            "dataset": manifest.dataset,
            "input": [steps.size, steps.size, steps.channels],
            "params": manifest.params,
            "macs": manifest.macs,
            "accuracy": dict(manifest.accuracy),
            "placement": self.config.placement,
            "engine": f"{facts.engine} {facts.version}",
            "precision": facts.precision,
            "engine_status": facts.status,
            "source": manifest.source,
            "licence": manifest.licence,
        }

    def make_cache(self) -> ResponseCache | None:
        config = self.config
        if self.form != "image" or not config.cache_mb:
            return None
        return ResponseCache(int(config.cache_mb * 2**20), config.cache_least_hit_rate)

    def free(self) -> None:
        self.executor.close()


@dataclass(frozen=True)
class ComposedEndpoint(Endpoint):
    """An ensemble or cascade; `members`: the models of all stages."""

    config: CompositionConfig
    stages: tuple[tuple[str, EnsembleConfig], ...]  # an ensemble is a single stage
    members: tuple[ModelEndpoint, ...]

    resizes_tensors: ClassVar[bool] = True

    def is_made_of(
        self, config: CompositionConfig, stages: tuple[tuple[str, EnsembleConfig], ...], served: Mapping[str, Endpoint]
    ) -> bool:
        """Whether it still has this configuration and these members, so that it need not be built again."""
        same = self.config == config and self.stages == stages
        return same and all(served.get(member.name) is member for member in self.members)

    def engine_work(self, answers: Sequence[Answer]) -> list[tuple[ModelRecorder, float]]:
        recorders = {member.name: member.recorder for member in self.members}
        return [(recorders[member.model], member.engine_seconds) for answer in answers for member in answer.members]

    @property
    def waiting_rows(self) -> int:
        return sum(member.batcher.waiting_rows for member in self.members)

    def describe(self) -> dict[str, Any]:
        """As for a model. `params` counts each member once; `macs` is for one image with all its views."""
        manifests = {member.name: member.manifest for member in self.members}
        members = [member for _, stage in self.stages for member in stage.members]
        return super().describe() | {
            "architecture": self.config.kind,
            "dataset": ", ".join(dict.fromkeys(manifest.dataset for manifest in manifests.values())),
            "members": list(manifests),
            "params": sum(manifest.params for manifest in manifests.values()),
            "macs": sum(count_looks(member.views) * manifests[member.model].macs for member in members),
            "accuracy": {},
            "placement": self.config.kind,
        }


class Endpoints:
    """An immutable table of endpoints by name."""

    def __init__(self, endpoints: Iterable[Endpoint] = ()) -> None:
        self.by_name: Mapping[str, Endpoint] = {endpoint.name: endpoint for endpoint in endpoints}

    # The only two checks for the kind of an endpoint: `explain` and `profile` list models and compositions with their
    # configurations, which other endpoints do not have.

    @property
    def models(self) -> list[ModelEndpoint]:
        """The models, each in its image form only."""
        return [model for model in self.by_name.values() if isinstance(model, ModelEndpoint) and model.form == "image"]

    @property
    def compositions(self) -> list[ComposedEndpoint]:
        """The ensembles and cascades."""
        return [endpoint for endpoint in self.by_name.values() if isinstance(endpoint, ComposedEndpoint)]

    def find(self, name: str, version: str = "") -> Endpoint:
        """The endpoint of a name. Raises NotFound, with the most similar name or the version that is served."""
        endpoint = self.by_name.get(name)
        if endpoint is None:
            raise unknown("model", name, sorted(self.by_name))
        if version and version != endpoint.version:
            raise NotFound(f"model {name!r} has no version {version[:50]!r}; the version here is {endpoint.version!r}")
        return endpoint
