"""Builds endpoints from a catalog: models from their artifacts, ensembles and cascades from their members."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from functools import partial

import numpy as np

from convoy.errors import reason_of
from models.artifact import Artifact, Manifest
from models.engines.engine import TensorSpec
from models.images.decoder import Decoder
from serve.batching.batcher import Batcher
from serve.batching.latency_curve import LatencyCurve
from serve.batching.line import BatcherLimits
from serve.config.base import TENSOR_SUFFIX
from serve.config.ensembles import EnsembleConfig
from serve.config.schema import Catalog, Limits, ModelConfig
from serve.ensembles.factory import CompositionConfig, compose, compositions_of, stages_of
from serve.ensembles.multi_view import ViewsDecoder
from serve.ensembles.runner import EnsembleRunner, MemberRecorder
from serve.executors.base import FORMS, Executor, Form
from serve.gateway.availability import members_of
from serve.gateway.endpoints import ComposedEndpoint, Connect, Endpoint, ModelEndpoint
from serve.telemetry.definitions import TARGET
from serve.telemetry.recorder import Metrics, ModelRecorder


class CatalogLoader:
    """Builds the endpoints of models, ensembles and cascades."""

    def __init__(self, connect: Connect, metrics: Metrics, limits: Limits) -> None:
        self._connect = connect
        self._metrics = metrics
        self._limits = limits
        self._turn = asyncio.Lock()

    async def load(self, model: ModelConfig) -> tuple[ModelEndpoint, ...]:
        """A model in both its forms. Raises the errors of reading its artifact, loading its engine or finding its host."""
        # Engines of this process load one at a time, since loading measures latency. Hosts do not wait: they may start slowly.
        async with self._turn if model.placement == "local" else nullcontext():
            artifact = await asyncio.to_thread(Artifact.load, model.folder)
            executor = await self._connect(model, artifact)
        try:
            return tuple(self._endpoint(model, artifact.manifest, executor, form) for form in FORMS)
        except Exception:
            executor.close()
            raise

    def compose(
        self, catalog: Catalog, models: Iterable[ModelEndpoint], present: Mapping[str, ComposedEndpoint]
    ) -> tuple[list[ComposedEndpoint], dict[str, str]]:
        """Builds the ensembles and cascades whose members serve. Also returns the errors of the others, by name.

        An endpoint of `present` with the same configuration and members is kept: closing it would fail its requests in flight.
        """
        served = {endpoint.name: endpoint for endpoint in models if endpoint.form == "image"}
        ensembles = {ensemble.name: ensemble for ensemble in catalog.ensembles}
        composed: list[ComposedEndpoint] = []
        problems: dict[str, str] = {}
        for config in compositions_of(catalog):
            stages = tuple(stages_of(config, ensembles))
            if not all(name in served for _, stage in stages for name in members_of(stage)):
                continue
            before = present.get(config.name)
            if before is not None and before.is_made_of(config, stages, served):
                composed.append(before)
                continue
            try:
                composed.append(self._compose(config, stages, ensembles, served))
            except Exception as error:  # noqa: BLE001 the others can still serve
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
        executor.on_measured.append(lambda measured: batcher.measured(limits(measured), measured))
        return batcher

    def _compose(
        self,
        config: CompositionConfig,
        stages: tuple[tuple[str, EnsembleConfig], ...],
        ensembles: Mapping[str, EnsembleConfig],
        served: Mapping[str, ModelEndpoint],
    ) -> ComposedEndpoint:
        composed = compose(config, ensembles, served)
        names = dict.fromkeys(member.model for _, stage in stages for member in stage.members)
        members = tuple(served[name] for name in names)
        decoder = ViewsDecoder(composed.geometries, self._limits.pixels)
        most = max(1, min(self._limits.images_per_request, self._limits.queue_rows // decoder.most_views))
        recorder = ModelRecorder(self._metrics, config.name, config.version)
        members_recorder = MemberRecorder(self._metrics, config.name, config.version)
        return ComposedEndpoint(
            name=config.name,
            version=config.version,
            form="image",
            labels=members[0].labels,
            input=TensorSpec(members[0].input.name, np.dtype(np.uint8), (-1, -1, -1, decoder.channels)),
            most_images=most,
            decoder=decoder,
            batcher=EnsembleRunner(
                composed.composition, BatcherLimits(most, self._limits.queue_rows), members_recorder.record
            ),
            recorder=recorder,
            config=config,
            stages=stages,
            members=members,
        )


async def close_endpoints(endpoints: Iterable[Endpoint]) -> None:
    """Lets running batches finish, then frees the engines."""
    closing = list(endpoints)
    await asyncio.gather(*(endpoint.finish() for endpoint in closing))
    for endpoint in closing:  # after all have finished: both forms of a model share an engine
        endpoint.free()
