"""Accuracy of the bundled ImageNet model through the gateway: serving decoder, batcher and HTTP."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.serve.listeners import StartGateway

MODEL = "squeezenet1_1-imagenet"

pytestmark = pytest.mark.slow


def test_squeezenet_classifies_imagenet_photos(shared: Path, start_gateway: StartGateway) -> None:
    files = sorted((shared / "images" / "imagenet_200").iterdir())
    with (
        start_gateway(models=[{"name": MODEL}]) as gateway,
        httpx.Client(timeout=120) as client,
        ThreadPoolExecutor(4) as pool,
    ):

        def predict(file: Path) -> int:
            url = f"{gateway.http}/v1/models/{MODEL}/classify"
            answer = client.post(url, content=file.read_bytes()).raise_for_status().json()
            return int(answer["predictions"][0]["classes"][0]["index"])

        correct = sum(
            index == int(file.name.split("_")[0]) for file, index in zip(files, pool.map(predict, files), strict=True)
        )
    assert len(files) == 200
    assert correct / len(files) >= 0.56
