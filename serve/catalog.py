"""What a gateway serves: endpoints by name, replaced as a whole when any of them changes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from convoy.errors import NotFound, unknown
from models.artifact import Artifact, Manifest
from models.engines.engine import TensorSpec
from serve.availability import parts_of, reason_of
from serve.batcher import Answer, Batcher, BatcherLimits, Line
from serve.compose import CompositionConfig, compose, compositions_of, stages_of
from serve.composition import Composition, PollRecorder
from serve.config import TENSOR_SUFFIX, Catalog, EnsembleConfig, Limits, ModelConfig
from serve.curve import LatencyCurve
from serve.decode import Decoder
from serve.decode_pool import Decodes
from serve.executors import FORMS, Executor, Form, LocalExecutor
from serve.looks import Looks, LooksDecoder
from serve.metrics import TARGET, Metrics, ModelRecorder
from serve.on_demand import OnDemandExecutor

Rows = NDArray[Any] | Looks
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
    batcher: Line
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


class CatalogLoader:
    """Builds the endpoints of models, and of what is made of them."""

    def __init__(self, connect: Connect, metrics: Metrics, limits: Limits) -> None:
        self._connect = connect
        self._metrics = metrics
        self._limits = limits
        self._turn = asyncio.Lock()

    async def load(self, model: ModelConfig) -> tuple[ModelEndpoint, ...]:
        """A model in both its forms. Raises what reading its artifact, loading its engine or finding its host raises."""
        # Engines of this process are loaded one after the other, since they are measured; a host may come late.
        async with self._turn if model.placement == "local" else nullcontext():
            artifact = await asyncio.to_thread(Artifact.load, model.folder)
            executor = await self._connect(model, artifact)
        try:
            return tuple(self._endpoint(model, artifact.manifest, executor, form) for form in FORMS)
        except Exception:
            executor.close()
            raise

    def compose(
        self, catalog: Catalog, models: Iterable[ModelEndpoint], present: Endpoints
    ) -> tuple[list[ComposedEndpoint], dict[str, str]]:
        """The ensembles and cascades whose members serve, and of those that could not be made the reason.

        What is made of the same members as one of `present` is that one: closing it would fail the requests on their way to it.
        """
        served = {endpoint.name: endpoint for endpoint in models if endpoint.form == "image"}
        ensembles = {one.name: one for one in catalog.ensembles}
        composed: list[ComposedEndpoint] = []
        problems: dict[str, str] = {}
        for config in compositions_of(catalog):
            stages = tuple(stages_of(config, ensembles))
            if not all(name in served for _, stage in stages for name in parts_of(stage)):
                continue
            before = present.by_name.get(config.name)
            if isinstance(before, ComposedEndpoint) and before.is_made_of(config, stages, served):
                composed.append(before)
                continue
            try:
                composed.append(self._compose(config, stages, ensembles, served))
            except Exception as error:  # noqa: BLE001 one that cannot be made is no reason for others not to be
                problems[config.name] = reason_of(error)
        return composed, problems

    def _endpoint(self, model: ModelConfig, manifest: Manifest, executor: Executor, form: Form) -> ModelEndpoint:
        name = model.name if form == "image" else model.name + TENSOR_SUFFIX
        recorder = ModelRecorder(self._metrics, name, model.version, model.name)
        self._metrics.set(TARGET, model.target_ms / 1000, model=name, version=model.version)
        return ModelEndpoint(
            name=name,
            version=model.version,
            form=form,
            labels=manifest.labels,
            input=executor.inputs[form],
            most_images=self._limits.images_per_request,
            decoder=Decoder(manifest.preprocessing, self._limits.pixels),
            batcher=self._batcher(model, executor, form, recorder),
            recorder=recorder,
            config=model,
            manifest=manifest,
            executor=executor,
        )

    def _batcher(self, model: ModelConfig, executor: Executor, form: Form, recorder: ModelRecorder) -> Batcher:
        def limits(curve: LatencyCurve) -> BatcherLimits:
            return BatcherLimits(curve.limit(model.target_ms / 1000), self._limits.queue_rows)

        curve = executor.curve
        batcher = Batcher(partial(executor.run, form), executor.slots, limits(curve), curve, recorder.batch)
        executor.on_measured.append(lambda found: batcher.measured(limits(found), found))
        return batcher

    def _compose(
        self,
        config: CompositionConfig,
        stages: tuple[tuple[str, EnsembleConfig], ...],
        ensembles: Mapping[str, EnsembleConfig],
        served: Mapping[str, ModelEndpoint],
    ) -> ComposedEndpoint:
        composed = compose(config, ensembles, served)
        names = dict.fromkeys(one.model for _, stage in stages for one in stage.members)
        members = tuple(served[name] for name in names)
        decoder = LooksDecoder(composed.geometries, self._limits.pixels)
        most = max(1, min(self._limits.images_per_request, self._limits.queue_rows // decoder.most_looks))
        recorder = ModelRecorder(self._metrics, config.name, config.version)
        polls = PollRecorder(self._metrics, config.name, config.version)
        return ComposedEndpoint(
            name=config.name,
            version=config.version,
            form="image",
            labels=members[0].labels,
            input=TensorSpec(members[0].input.name, np.dtype(np.uint8), (-1, -1, -1, decoder.channels)),
            most_images=most,
            decoder=decoder,
            batcher=Composition(composed.plan, BatcherLimits(most, self._limits.queue_rows), polls.record),
            recorder=recorder,
            config=config,
            stages=stages,
            members=members,
        )


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
    return executor.trouble if isinstance(executor, LocalExecutor | OnDemandExecutor) else ""


async def close_endpoints(endpoints: Iterable[Endpoint]) -> None:
    """Lets what runs finish, then frees the engines."""
    gone = list(endpoints)
    await asyncio.gather(*(endpoint.batcher.close() for endpoint in gone))
    for endpoint in gone:
        endpoint.recorder.flush()
        if isinstance(endpoint, ModelEndpoint):
            endpoint.executor.close()
