"""What a gateway serves: endpoints by name, replaced as a whole when the catalog changes."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from convoy.errors import NotFound
from models.artifact import Artifact, Manifest
from models.engine import TensorSpec
from serve.batcher import Batcher, BatcherLimits
from serve.config import TENSOR_SUFFIX, Catalog, Limits, ModelConfig
from serve.decode import Decoder
from serve.executors import FORMS, Executor, Form
from serve.metrics import TARGET, Metrics, ModelRecorder

Connect = Callable[[ModelConfig, Artifact], Awaitable[Executor]]


@dataclass(frozen=True)
class Endpoint:
    """One name that clients call: a model in one of its two forms, with its own line and recorder."""

    name: str
    form: Form
    config: ModelConfig
    manifest: Manifest
    input: TensorSpec
    decoder: Decoder
    executor: Executor
    batcher: Batcher
    recorder: ModelRecorder

    @property
    def version(self) -> str:
        return self.config.version


class Endpoints:
    """An immutable table of endpoints, with errors that help."""

    def __init__(self, endpoints: Iterable[Endpoint] = ()) -> None:
        self.by_name: Mapping[str, Endpoint] = {endpoint.name: endpoint for endpoint in endpoints}

    def find(self, name: str, version: str = "") -> Endpoint:
        """Raises NotFound that names the nearest known model or the version that is there."""
        endpoint = self.by_name.get(name)
        if endpoint is None:
            near = difflib.get_close_matches(name, self.by_name, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"models here: {', '.join(sorted(self.by_name))}"
            raise NotFound(f"unknown model {name[:200]!r}; {hint}")
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

        Raises ArtifactError when an artifact is missing or corrupt.
        """
        kept = {endpoint.config for endpoint in present.by_name.values()}
        endpoints = [endpoint for endpoint in present.by_name.values() if endpoint.config in catalog.models]
        fresh: list[Endpoint] = []
        try:
            for model in catalog.models:
                if model not in kept:
                    fresh.extend(await self._load_model(model))
        except BaseException:
            await close_endpoints(fresh)
            raise
        return Endpoints([*endpoints, *fresh])

    async def _load_model(self, model: ModelConfig) -> list[Endpoint]:
        artifact = await asyncio.to_thread(Artifact.load, model.folder)
        executor = await self._connect(model, artifact)
        return [self._endpoint(model, artifact.manifest, executor, form) for form in FORMS]

    def _endpoint(self, model: ModelConfig, manifest: Manifest, executor: Executor, form: Form) -> Endpoint:
        name = model.name if form == "image" else model.name + TENSOR_SUFFIX
        recorder = ModelRecorder(self._metrics, name, model.version, model.name)
        self._metrics.set(TARGET, model.target_ms / 1000, model=name, version=model.version)
        batch = executor.curve.limit(model.target_ms / 1000)
        limits = BatcherLimits(batch, self._limits.queue_rows)
        batcher = Batcher(partial(executor.run, form), executor.slots, limits, executor.curve, recorder.batch)
        decoder = Decoder(manifest.preprocessing, self._limits.pixels)
        return Endpoint(name, form, model, manifest, executor.inputs[form], decoder, executor, batcher, recorder)


async def close_endpoints(endpoints: Iterable[Endpoint]) -> None:
    """Lets what runs finish, then frees the engines."""
    gone = list(endpoints)
    await asyncio.gather(*(endpoint.batcher.close() for endpoint in gone))
    for endpoint in gone:
        endpoint.recorder.flush()
        endpoint.executor.close()
