"""Starts a Ray node as a pod of a RayService does: `ray start` in its own process, with the REST API and a token."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.chaos.namespaces import RAY, SERVE
from serve.deployments.local import RAY_ENVIRONMENT
from tests.conftest import REPOSITORY
from tests.proxies import CountingProxy, counting_proxy

PATIENCE_SECONDS = 180


@dataclass(frozen=True)
class RayNode:
    """URLs of the REST API and of Ray's agent, the environment for Ray's commands, and the proxy that it names."""

    dashboard: str
    agent: str
    environment: dict[str, str]
    proxy: CountingProxy

    def deploy(self, document: Path) -> None:
        """Runs `serve deploy`, which returns as soon as the document is accepted."""
        subprocess.run(
            [*SERVE, "deploy", "--address", self.dashboard, str(document)],
            cwd=REPOSITORY,
            env=self.environment,
            check=True,
            capture_output=True,
            timeout=PATIENCE_SECONDS,
        )

    def ask(self, url: str) -> httpx.Response:
        """The answer to a client without a token."""
        return httpx.get(url, timeout=10)


@contextmanager
def ray_node(free_ports: Callable[[int], list[int]], *, cpus: int, resources: str) -> Iterator[RayNode]:
    """Runs a separate head node during the block."""
    with counting_proxy() as proxy:
        yield from _started(free_ports(4), cpus, resources, proxy)


def _started(ports: list[int], cpus: int, resources: str, proxy: CountingProxy) -> Iterator[RayNode]:
    gcs, dashboard, agent, client = ports
    environment = os.environ | proxy.everywhere | RAY_ENVIRONMENT
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "PYTHONPATH": str(REPOSITORY)}
    folder = tempfile.mkdtemp(prefix="ray-")  # a short path, because Ray creates Unix sockets in it
    command = [
        *RAY, "start", "--head", "--block", "--disable-usage-stats",
        f"--temp-dir={folder}", f"--port={gcs}", f"--ray-client-server-port={client}",
        "--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
        f"--dashboard-agent-listen-port={agent}", "--min-worker-port=0", "--max-worker-port=0",
        "--node-ip-address=127.0.0.1", f"--num-cpus={cpus}", f"--resources={resources}", "--object-store-memory=80000000",
    ]  # fmt: skip
    with (Path(folder) / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=log, stderr=log)
    node = RayNode(f"http://127.0.0.1:{dashboard}", f"http://127.0.0.1:{agent}", environment, proxy)
    try:
        wait_until(lambda: answers(node, f"{node.agent}/api/healthz"))
        yield node
    finally:
        process.terminate()
        process.wait(60)
        shutil.rmtree(folder)


def answers(node: RayNode, url: str) -> bool:
    try:
        return node.ask(url).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def wait_until(holds: Callable[[], bool]) -> None:
    """Polls a condition until it holds. Fails after PATIENCE_SECONDS."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < end, "the condition did not hold in time"
        time.sleep(0.2)
