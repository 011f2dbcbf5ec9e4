"""Requests leave no reference cycles: their memory must not wait for the garbage collector."""

from __future__ import annotations

import gc
import http.client
from collections.abc import Callable
from pathlib import Path

from models.artifact import BUNDLED
from serve.config.schema import Listen, ModelConfig, Settings
from serve.gateway.request_context import RequestContext
from tests.serve.listeners import serving

DIGIT = (BUNDLED / "samples" / "mnist-0-7.png").read_bytes()
REQUESTS = 20


def test_contexts_are_freed_with_their_requests(tmp_path: Path, free_ports: Callable[[int], list[int]]) -> None:
    port, grpc_port, metrics_port = free_ports(3)
    settings = Settings(
        listen=Listen(http_port=port, grpc_port=grpc_port, metrics_port=metrics_port),
        runtime_dir=str(tmp_path),
        models=(ModelConfig(name="lenet5-mnist", threads=1),),
    )
    with serving(settings):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

        def ask() -> None:
            connection.request("POST", "/v1/models/lenet5-mnist/classify", DIGIT)
            response = connection.getresponse()
            response.read()
            assert response.status == 200

        ask()
        gc.collect()
        gc.disable()
        try:
            for _ in range(REQUESTS):
                ask()
            alive = sum(isinstance(one, RequestContext) for one in gc.get_objects())
        finally:
            gc.enable()
            connection.close()
    assert alive <= 2  # the connection's last request, and one whose task is just ending
