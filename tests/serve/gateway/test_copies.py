"""Large bodies are copied twice at most on their way to the engine: out of the parser, and into one piece."""

from __future__ import annotations

import http.client
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson

from serve.config.schema import Limits, Listen, ModelConfig, Settings
from tests.serve.listeners import serving

ROWS = 4000  # of 32x32 floats: 16 MB
SLACK_BYTES = 2 * 2**20


def ask(port: int, head: bytes, tensor: bytes) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Length": str(len(head) + len(tensor))}
    connection.request("POST", "/v2/models/lenet5-mnist-tensor/infer", iter((head, tensor)), headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status


def test_a_large_tensor_is_never_there_more_than_twice(tmp_path: Path, free_ports: Callable[[int], list[int]]) -> None:
    tensor = np.zeros((ROWS, 1, 32, 32), np.float32).tobytes()
    parameters = {"binary_data_size": len(tensor)}
    described = {"name": "input", "shape": [ROWS, 1, 32, 32], "datatype": "FP32", "parameters": parameters}
    head = orjson.dumps({"inputs": [described], "parameters": {"binary_data_output": True}})
    port, grpc_port, metrics_port = free_ports(3)
    settings = Settings(
        listen=Listen(http_port=port, grpc_port=grpc_port, metrics_port=metrics_port),
        runtime_dir=str(tmp_path),
        models=(ModelConfig(name="lenet5-mnist", threads=1),),
        limits=Limits(images_per_request=ROWS, queue_rows=ROWS),
    )
    with serving(settings):
        assert ask(port, head, tensor) == 200  # every lazy import and buffer is there
        tracemalloc.start()
        try:
            assert ask(port, head, tensor) == 200
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak <= 2 * len(tensor) + SLACK_BYTES
