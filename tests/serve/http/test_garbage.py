"""Requests leave no reference cycles: their memory must not wait for the garbage collector, nor for the next request."""

from __future__ import annotations

import base64
import gc
import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from models.artifact import BUNDLED
from serve.config.schema import Listen, ModelConfig, Settings
from serve.gateway.request_context import RequestContext
from tests.serve.listeners import serving
from tests.waiting import until

DIGIT = (BUNDLED / "samples" / "mnist-0-7.png").read_bytes()
REQUESTS = 20
CLASSIFY = "/v1/models/lenet5-mnist/classify"


@pytest.fixture
def connection(tmp_path: Path, free_ports: Callable[[int], list[int]]) -> Iterator[http.client.HTTPConnection]:
    port, grpc_port, metrics_port = free_ports(3)
    settings = Settings(
        listen=Listen(http_port=port, grpc_port=grpc_port, metrics_port=metrics_port),
        runtime_dir=str(tmp_path),
        models=(ModelConfig(name="lenet5-mnist", threads=1),),
    )
    with serving(settings), closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as opened:
        yield opened


def ask(connection: http.client.HTTPConnection, body: bytes, kind: str = "image/png") -> int:
    connection.request("POST", CLASSIFY, body, {"content-type": kind})
    response = connection.getresponse()
    response.read()
    return response.status


def contexts() -> list[RequestContext]:
    # Not isinstance: it reads `__class__`, and lazy objects of other libraries warn when they are read.
    return [held for held in gc.get_objects() if type(held) is RequestContext]


def test_contexts_are_freed_with_their_requests(connection: http.client.HTTPConnection) -> None:
    ask(connection, DIGIT)
    gc.collect()
    gc.disable()
    try:
        assert {ask(connection, DIGIT) for _ in range(REQUESTS)} == {200}
        assert len(contexts()) <= 1  # that of a request whose task is just ending
    finally:
        gc.enable()


@pytest.mark.parametrize(("image", "status"), [(base64.b64encode(DIGIT).decode(), 200), ("no image", 400)])
def test_an_idle_connection_keeps_nothing_of_its_last_request(
    connection: http.client.HTTPConnection, image: str, status: int
) -> None:
    # Unknown fields of a body may be as large as the body, which `limits.bodies_bytes` no longer counts once it is answered.
    document = {"images": [image], "unknown": "x" * 2_000_000}
    assert ask(connection, json.dumps(document).encode(), "application/json") == status
    until(lambda: not contexts(), 10)
