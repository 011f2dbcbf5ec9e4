"""The bundled ImageNet network knows ImageNet, through the gateway: the serving decoder, the batcher and the wire."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from serve.config.schema import Listen, ModelConfig, Settings
from tests.serve.listeners import serving

MODEL = "squeezenet1_1-imagenet"

pytestmark = pytest.mark.slow


def test_squeezenet_through_the_server(shared: Path, tmp_path: Path, free_ports: Callable[[int], list[int]]) -> None:
    http, grpc, metrics = free_ports(3)
    settings = Settings(
        listen=Listen(http_port=http, grpc_port=grpc, metrics_port=metrics),
        runtime_dir=str(tmp_path),
        models=(ModelConfig(name=MODEL),),
    )
    files = sorted((shared / "images" / "imagenet_200").iterdir())
    with serving(settings) as gateway, httpx.Client(timeout=120) as client, ThreadPoolExecutor(4) as pool:

        def best(file: Path) -> int:
            url = f"{gateway.http}/v1/models/{MODEL}/classify"
            answer = client.post(url, content=file.read_bytes()).raise_for_status().json()
            return int(answer["predictions"][0]["classes"][0]["index"])

        right = sum(
            index == int(file.name.split("_")[0]) for file, index in zip(files, pool.map(best, files), strict=True)
        )
    assert len(files) == 200
    assert right / len(files) >= 0.56
