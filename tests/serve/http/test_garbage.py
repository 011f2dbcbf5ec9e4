"""Requests leave no reference cycles: their memory must not wait for the garbage collector, nor for the next request."""

from __future__ import annotations

import base64
import gc
import http.client
import json
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest

from models.artifact import BUNDLED
from serve.gateway.request_context import RequestContext
from tests.serve.http.test_both_paths import BINARY, RAW, TENSOR
from tests.serve.listeners import StartGateway
from tests.waiting import until

DIGIT = (BUNDLED / "samples" / "mnist-0-7.png").read_bytes()
REQUESTS = 20
CLASSIFY = "/v1/models/lenet5-mnist/classify"


@pytest.fixture
def connection(start_gateway: StartGateway) -> Iterator[http.client.HTTPConnection]:
    with start_gateway(models=[{"name": "lenet5-mnist", "threads": 1}]) as gateway:
        address = gateway.http.removeprefix("http://")
        with closing(http.client.HTTPConnection(address, timeout=60)) as connection:
            yield connection


def ask(
    connection: http.client.HTTPConnection, body: bytes, kind: str = "image/png", path: str = CLASSIFY, **headers: str
) -> int:
    connection.request("POST", path, body, {"content-type": kind, **headers})
    response = connection.getresponse()
    response.read()
    return response.status


RAW_VALUES = len(RAW) // 4
NOT_A_NUMBER = BINARY[0], BINARY[1].replace(RAW, np.full(RAW_VALUES, np.nan, np.float32).tobytes())
KINDS: dict[str, tuple[str, bytes, dict[str, str], int]] = {
    "an image": (CLASSIFY, DIGIT, {}, 200),
    "a tensor": (TENSOR, BINARY[1], BINARY[0], 200),
    "a refused image": (CLASSIFY, b"no image", {}, 400),
    "rows without an answer": (TENSOR, NOT_A_NUMBER[1], NOT_A_NUMBER[0], 400),
}


def contexts() -> dict[int, RequestContext]:
    """The contexts in this process by their address. Keep the result while addresses are compared: they are used again."""
    # Not isinstance: it reads `__class__`, and lazy objects of other libraries warn when they are read.
    return {id(found): found for found in gc.get_objects() if type(found) is RequestContext}


@pytest.mark.parametrize("request_name", ["an image", "a tensor", "a refused image"])
def test_contexts_are_freed_with_their_requests(connection: http.client.HTTPConnection, request_name: str) -> None:
    path, body, headers, status = KINDS[request_name]
    for _ in range(3):  # then a tensor is known
        ask(connection, body, path=path, **headers)
    gc.collect()
    earlier = contexts()  # of other tests
    gc.disable()
    try:
        assert {ask(connection, body, path=path, **headers) for _ in range(REQUESTS)} == {status}
        assert len(contexts().keys() - earlier.keys()) <= 1  # of a request whose task is about to end
    finally:
        gc.enable()


@pytest.mark.parametrize(("image", "status"), [(base64.b64encode(DIGIT).decode(), 200), ("not an image", 400)])
def test_an_idle_connection_keeps_nothing_of_its_last_request(
    connection: http.client.HTTPConnection, image: str, status: int
) -> None:
    # Unknown fields of a body may be as large as the body, which `limits.bodies_bytes` no longer counts once it is answered.
    document = {"images": [image], "unknown": "x" * 2_000_000}
    earlier = contexts()  # of other tests
    assert ask(connection, json.dumps(document).encode(), "application/json") == status
    until(lambda: not contexts().keys() - earlier.keys(), 10)
