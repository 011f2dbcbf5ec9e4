"""A large body is in memory at most twice on its way to the engine: as pieces from the parser, and joined."""

from __future__ import annotations

import http.client
import tracemalloc

import numpy as np
import orjson

from tests.serve.listeners import Serving, StartGateway

ROWS = 4000  # of 32x32 floats: 16 MB
SLACK_BYTES = 2 * 2**20


def infer(gateway: Serving, head: bytes, tensor: bytes) -> int:
    """The status of an inference with a JSON part and a binary tensor."""
    connection = http.client.HTTPConnection(gateway.http.removeprefix("http://"), timeout=60)
    headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Length": str(len(head) + len(tensor))}
    connection.request("POST", "/v2/models/lenet5-mnist-tensor/infer", iter((head, tensor)), headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status


def test_a_large_tensor_is_in_memory_at_most_twice(start_gateway: StartGateway) -> None:
    tensor = np.zeros((ROWS, 1, 32, 32), np.float32).tobytes()
    parameters = {"binary_data_size": len(tensor)}
    description = {"name": "input", "shape": [ROWS, 1, 32, 32], "datatype": "FP32", "parameters": parameters}
    head = orjson.dumps({"inputs": [description], "parameters": {"binary_data_output": True}})
    models = [{"name": "lenet5-mnist", "threads": 1}]
    limits = {"images_per_request": ROWS, "queue_rows": ROWS}
    with start_gateway(models=models, limits=limits) as gateway:
        assert infer(gateway, head, tensor) == 200  # makes the lazy imports and the permanent buffers
        tracemalloc.start()
        try:
            assert infer(gateway, head, tensor) == 200
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak <= 2 * len(tensor) + SLACK_BYTES
