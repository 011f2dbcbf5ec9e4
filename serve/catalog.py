"""What a gateway serves: endpoints by name, replaced as a whole when the catalog changes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from convoy.errors import NotFound, unknown
from models.artifact import Artifact, Manifest
from models.engines.engine import TensorSpec
from serve.batcher import Answer, Batcher, BatcherLimits, Line
from serve.compose import CompositionConfig, compose, compositions_of, stages_of
from serve.composition import Composition, PollRecorder
from serve.config import TENSOR_SUFFIX, Catalog, EnsembleConfig, Limits, ModelConfig
from serve.curve import LatencyCurve
from serve.decode import Decoder
from serve.decode_pool import Decodes
from serve.executors import FORMS, Executor, Form
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
    """Builds the endpoints of a catalog, keeping those whose configuration did not change."""

    def __init__(self, connect: Connect, metrics: Metrics, limits: Limits) -> None:
        self._connect = connect
        self._metrics = metrics
        self._limits = limits

    async def load(self, catalog: Catalog, present: Endpoints) -> Endpoints:
        """The endpoints of `catalog`. Nothing of `present` is closed; on an error the new ones are.

        Raises ArtifactError when an artifact is missing or corrupt, ConfigError when models cannot vote together.
        """
        models = [one for one in present.by_name.values() if isinstance(one, ModelEndpoint)]
        kept = {endpoint.config for endpoint in models}
        endpoints = [endpoint for endpoint in models if endpoint.config in catalog.models]
        fresh: list[ModelEndpoint] = []
        try:
            for model in catalog.models:
                if model not in kept:
                    fresh.extend(await self._load_model(model))
            endpoints += fresh
            return Endpoints([*endpoints, *self._compose_all(catalog, endpoints)])
        except BaseException:
            await close_endpoints(fresh)
            raise

    async def _load_model(self, model: ModelConfig) -> list[ModelEndpoint]:
        artifact = await asyncio.to_thread(Artifact.load, model.folder)
        executor = await self._connect(model, artifact)
        return [self._endpoint(model, artifact.manifest, executor, form) for form in FORMS]

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

    def _compose_all(self, catalog: Catalog, models: Iterable[ModelEndpoint]) -> list[ComposedEndpoint]:
        """Ensembles and cascades are made anew each time, over the models that are there now: that costs nothing."""
        served = {endpoint.name: endpoint for endpoint in models if endpoint.form == "image"}
        ensembles = {one.name: one for one in catalog.ensembles}
        return [self._compose(config, ensembles, served) for config in compositions_of(catalog)]

    def _compose(
        self, config: CompositionConfig, ensembles: Mapping[str, EnsembleConfig], served: Mapping[str, ModelEndpoint]
    ) -> ComposedEndpoint:
        composed = compose(config, ensembles, served)
        stages = tuple(stages_of(config, ensembles))
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
    return executor.problem if isinstance(executor, OnDemandExecutor) else ""


async def close_endpoints(endpoints: Iterable[Endpoint]) -> None:
    """Lets what runs finish, then frees the engines."""
    gone = list(endpoints)
    await asyncio.gather(*(endpoint.batcher.close() for endpoint in gone))
    for endpoint in gone:
        endpoint.recorder.flush()
        if isinstance(endpoint, ModelEndpoint):
            endpoint.executor.close()
