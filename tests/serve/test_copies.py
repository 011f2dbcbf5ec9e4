"""Large bodies are copied twice at most on their way to the engine: out of the parser, and into one piece."""

from __future__ import annotations

import asyncio
import http.client
import tracemalloc
from pathlib import Path

import numpy as np
import orjson

from models.artifact import Artifact
from serve.catalog import CatalogLoader, Endpoints, close_endpoints
from serve.config import Catalog, Limits, ModelConfig, Settings
from serve.dataplane import DataPlane
from serve.decode_pool import DecodePool
from serve.executors import Executor, load_local
from serve.http_listener import HttpListener
from serve.metric_pages import PageWriter
from serve.metrics import BUSY, DECODE_BUSY, Metrics
from serve.sockets import bind

ROWS = 4000  # of 32x32 floats: 16 MB
SLACK_BYTES = 2**20


def ask(port: int, head: bytes, tensor: bytes) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Length": str(len(head) + len(tensor))}
    connection.request("POST", "/v2/models/lenet5-mnist-tensor/infer", iter((head, tensor)), headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status


def test_a_large_tensor_is_never_there_more_than_twice(tmp_path: Path) -> None:
    tensor = np.zeros((ROWS, 1, 32, 32), np.float32).tobytes()
    parameters = {"binary_data_size": len(tensor)}
    described = {"name": "input", "shape": [ROWS, 1, 32, 32], "datatype": "FP32", "parameters": parameters}
    head = orjson.dumps({"inputs": [described], "parameters": {"binary_data_output": True}})
    settings = Settings(
        models=(ModelConfig(name="lenet5-mnist", threads=1),), limits=Limits(images_per_request=ROWS, queue_rows=ROWS)
    )

    async def scenario() -> int:
        metrics = Metrics(PageWriter(tmp_path))
        plane = DataPlane(settings.limits, DecodePool(1, metrics.values(DECODE_BUSY)))

        async def connect(model: ModelConfig, artifact: Artifact) -> Executor:
            return load_local(model, artifact, 1, metrics.values(BUSY, model=model.name, version=model.version))

        loader = CatalogLoader(connect, metrics, settings.limits)
        plane.replace(await loader.load(Catalog(models=settings.models), Endpoints()))
        with bind("127.0.0.1", 0) as socket:
            listener = HttpListener(plane, metrics, settings, socket)
            await listener.start()
            port = int(socket.getsockname()[1])
            assert await asyncio.to_thread(ask, port, head, tensor) == 200  # every lazy import and buffer is there
            tracemalloc.start()
            try:
                assert await asyncio.to_thread(ask, port, head, tensor) == 200
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            await listener.stop(5)
        await close_endpoints(plane.endpoints.by_name.values())
        return peak

    assert asyncio.run(scenario()) <= 2 * len(tensor) + SLACK_BYTES
