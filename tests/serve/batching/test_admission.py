"""Admission: a request that the queue would refuse is refused before its images are decoded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from convoy.errors import Overloaded
from models.artifact import BUNDLED, Artifact
from models.engines.store.store import Store
from models.images.decoder import Decoder
from models.images.headers import Probe
from models.images.jpeg import ImageBytes
from models.images.resize import Pixels
from serve.batching.batcher import Batcher
from serve.batching.latency_curve import LatencyCurve
from serve.batching.line import BatcherLimits
from serve.batching.slots import Slots
from serve.config.schema import Limits, ModelConfig
from serve.executors.base import Executor
from serve.executors.engine_selection import build_spec
from serve.executors.engine_set import load_engines
from serve.executors.local import LocalExecutor
from serve.gateway.catalog_loader import CatalogLoader
from serve.gateway.dataplane import DataPlane
from serve.gateway.endpoints import Endpoint, Endpoints, ModelEndpoint
from serve.gateway.request_context import RequestContext
from serve.images.decode_pool import DecodePool
from serve.telemetry.mmap_store import MmapWriter
from serve.telemetry.recorder import Metrics
from serve.telemetry.request_timings import RequestTimings
from tests.pictures import save, scene

MODEL = ModelConfig(name="lenet5-mnist", threads=1)
FOREVER = 1e12


class CountingDecoder(Decoder):
    """Counts the images it decodes."""

    decoded = 0

    def decode(self, body: ImageBytes, probe: Probe | None = None) -> Pixels:
        self.decoded += 1
        return super().decode(body, probe)


def with_full_queue(
    tmp_path: Path, test: Callable[[DataPlane, Endpoint, CountingDecoder], Coroutine[Any, Any, None]]
) -> None:
    """Runs a test with an endpoint whose engine hangs and whose queue is full."""

    async def scenario() -> None:
        metrics = Metrics(MmapWriter(tmp_path))
        plane = DataPlane(Limits(), DecodePool(1, np.zeros(1)))

        async def connect(model: ModelConfig, artifact: Artifact) -> Executor:
            return LocalExecutor(load_engines(model, build_spec(model, artifact), Store(), 1, metrics), model.name)

        loaded = Endpoints(await CatalogLoader(connect, metrics, plane.limits).load(MODEL))
        gate = asyncio.Event()

        async def hang(rows: NDArray[Any]) -> NDArray[np.float32]:
            await gate.wait()
            return np.zeros((len(rows), 10), np.float32)

        endpoint = loaded.find("lenet5-mnist")
        assert isinstance(endpoint, ModelEndpoint)
        decoder = CountingDecoder(endpoint.manifest.preprocessing)
        batcher = Batcher(hang, Slots(1), BatcherLimits(1, 2), LatencyCurve((1,), (0.001,)))
        row = np.zeros((1, 28, 28, 1), np.uint8)
        waiting = [batcher.submit(row, FOREVER) for _ in range(3)]
        await test(plane, replace(endpoint, decoder=decoder, batcher=batcher), decoder)
        gate.set()
        await asyncio.gather(*waiting)

    asyncio.run(scenario())


def digit() -> bytes:
    return (BUNDLED / "samples" / "mnist-0-7.png").read_bytes()


@pytest.mark.parametrize("images", [[digit()], [save(scene(300, 300), "JPEG")], [digit(), digit()]])
def test_no_image_is_decoded_while_the_queue_is_full(tmp_path: Path, images: list[bytes]) -> None:
    async def refused(plane: DataPlane, endpoint: Endpoint, decoder: CountingDecoder) -> None:
        with pytest.raises(Overloaded, match="queue full"):
            await plane.classify(endpoint, RequestContext(RequestTimings(0.0), FOREVER), images)
        assert decoder.decoded == 0

    with_full_queue(tmp_path, refused)
