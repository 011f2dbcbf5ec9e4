"""SIGTERM drains a server: it reports not ready, finishes requests and exits; clients that check readiness lose nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import yaml

from models.artifact import BUNDLED
from tests.conftest import REPOSITORY
from tests.waiting import until

pytestmark = pytest.mark.slow  # starts its own server and stops it

DIGIT = (BUNDLED / "samples" / "mnist-0-7.png").read_bytes()
CLASSIFY = "/v1/models/lenet5-mnist/classify"
CONVOY = [sys.executable, "-c", "from convoy.cli import main; main()"]
REQUESTS = 20_000
CLIENTS = 8
PATIENCE_SECONDS = 180.0


@contextmanager
def up(folder: Path, ports: list[int]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`convoy up` with one model in the gateway and one in a host."""
    config = folder / "convoy.yaml"
    listen = dict(zip(("http_port", "grpc_port", "metrics_port"), ports, strict=True))
    models = [{"name": "lenet5-mnist"}, {"name": "resnet20-cifar10", "placement": "dedicated"}]
    config.write_text(yaml.safe_dump({"listen": listen, "runtime_dir": str(folder / "node"), "models": models}))
    command = [*CONVOY, "up", "--config", str(config)]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield process, f"http://127.0.0.1:{listen['http_port']}"
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def ready(client: httpx.Client) -> bool:
    try:
        return client.get("/v2/health/ready").status_code == 200
    except httpx.TransportError:
        return False


class Clients:
    """Clients that send requests until `leave` is set."""

    def __init__(self, url: str) -> None:
        self.codes: Counter[object] = Counter()
        self.leave = threading.Event()
        self._url = url
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._send) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        with httpx.Client(base_url=self._url, timeout=30) as client:
            while not self.leave.is_set():
                try:
                    code: object = client.post(CLASSIFY, content=DIGIT).status_code
                except httpx.TransportError as error:
                    code = repr(error)
                with self._lock:
                    self.codes[code] += 1

    def join(self) -> None:
        for thread in self._threads:
            thread.join()


def test_sigterm_loses_no_request(tmp_path: Path, free_ports: Callable[[int], list[int]]) -> None:
    with up(tmp_path, free_ports(3)) as (process, url), httpx.Client(base_url=url) as watch:
        until(lambda: ready(watch), PATIENCE_SECONDS)
        clients = Clients(url)
        try:
            until(lambda: clients.codes.total() >= REQUESTS, PATIENCE_SECONDS)
            process.send_signal(signal.SIGTERM)
            until(lambda: not ready(watch), PATIENCE_SECONDS)
            assert httpx.post(url + CLASSIFY, content=DIGIT).status_code == 200  # still served
        finally:
            clients.leave.set()
            clients.join()
        assert set(clients.codes) == {200}
        assert "draining" in process.communicate(timeout=PATIENCE_SECONDS)[0]
        assert process.returncode == 0


def test_sigterm_at_the_end_of_the_start_drains_as_well(tmp_path: Path, free_ports: Callable[[int], list[int]]) -> None:
    """The gateway is ready slightly before the command knows it; a request in flight is answered even then."""
    with up(tmp_path, free_ports(3)) as (process, url), httpx.Client(base_url=url) as watch:
        until(lambda: ready(watch), PATIENCE_SECONDS)
        process.send_signal(signal.SIGTERM)
        assert watch.post(CLASSIFY, content=DIGIT).status_code == 200
        assert "draining" in process.communicate(timeout=PATIENCE_SECONDS)[0]
        assert process.returncode == 0
