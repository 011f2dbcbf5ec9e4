"""The limits are real servers that answer correctly: bare uvicorn, the raw protocol, and both bare gRPC servers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from benchmarks.nets import lenet5
from benchmarks.peers import requests
from benchmarks.peers.contenders import Work, grpc_limits, http_limits
from benchmarks.peers.requests import Payload
from benchmarks.turns import LIMIT, RAW


@pytest.mark.parametrize("kind", ["image", "tensor"])
def test_http_limits_answer_with_the_label(kind: str, tmp_path: Path) -> None:
    work = Work(lenet5(tmp_path), tmp_path, tmp_path)
    payloads: dict[str, Callable[[], Payload]] = {
        "image": partial(requests.image, work.net),
        "tensor": partial(requests.float_tensor, work.net, tmp_path),
    }
    names = []
    for limit in http_limits(work, payloads[kind](), threads=1):
        with limit() as targets:
            names += [target.name for target in targets]
    assert names == [LIMIT, RAW]  # granian is not installed here


def test_grpc_limits_answer_with_the_label(tmp_path: Path) -> None:
    work = Work(lenet5(tmp_path), tmp_path, tmp_path)
    names = []
    for limit in grpc_limits(work, threads=1):
        with limit() as targets:
            names += [target.name for target in targets]
    assert names == [
        f"limit: {server}, {kind}" for server in ("pygrpc-native", "grpc.aio") for kind in ("image", "tensor")
    ]
