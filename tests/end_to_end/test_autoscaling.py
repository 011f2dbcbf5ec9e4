"""Hosts are added under load and removed after it, and no request fails."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from benchmarks.server import Server
from serve.config.loading import parse_settings
from serve.config.schema import Settings
from serve.deployments import local
from tests.artifacts import quadrant_image, write_artifact
from tests.end_to_end.test_load import png
from tests.waiting import until

pytestmark = pytest.mark.slow  # scaling down takes a minute

LOOPS = 25_000  # about 40 ms per run, whatever the batch size
CLIENTS = 12
PATIENCE_SECONDS = 300.0


@pytest.fixture
def scaled(tmp_path: Path, free_ports: Callable[[int], list[int]]) -> Iterator[Settings]:
    artifact = write_artifact(tmp_path / "slow", "slow", loops=LOOPS)
    model = {"name": "slow", "artifact": str(artifact), "max_batch": 1, "placement": "dedicated", "max_replicas": 2}
    listen = dict(zip(("http_port", "grpc_port", "metrics_port"), free_ports(3), strict=True))
    settings = parse_settings({"listen": listen, "runtime_dir": str(tmp_path / "node"), "models": [model]})
    local.start(settings)
    yield settings
    local.stop()


def hosts() -> int:
    """Host processes of this test's Ray."""
    processes = Server(os.getpid(), "", 0, 0).processes()
    titles = (Path(f"/proc/{pid}/cmdline") for pid in processes)
    return sum("ServeReplica:host-slow" in title.read_text() for title in titles if title.exists())


def there_are(count: int) -> bool:
    return hosts() == count


def test_hosts_scale_up_under_load_and_down_after_it(scaled: Settings) -> None:
    async def load(client: httpx.AsyncClient, codes: Counter[int], ended: asyncio.Event) -> None:
        while not ended.is_set():
            codes[(await client.post("/v1/models/slow/classify", content=png(quadrant_image(1)))).status_code] += 1

    async def scenario() -> Counter[int]:
        codes: Counter[int] = Counter()
        url = f"http://127.0.0.1:{scaled.listen.http_port}"
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            for clients, expected in ((CLIENTS, 2), (1, 2), (0, 1)):
                ended = asyncio.Event()
                tasks = [asyncio.create_task(load(client, codes, ended)) for _ in range(clients)]
                await asyncio.to_thread(until, partial(there_are, expected), PATIENCE_SECONDS)
                ended.set()
                await asyncio.gather(*tasks)
        return codes

    assert hosts() == 1
    assert set(asyncio.run(scenario())) == {200}
