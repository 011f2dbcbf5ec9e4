"""A Ray node as a pod of RayService starts it: `ray start` as a process of its own, with the dashboard's REST API and a token."""

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
    """Where the REST API and the node's agent answer, the environment in which to ask, and the proxy that it names."""

    dashboard: str
    agent: str
    environment: dict[str, str]
    proxy: CountingProxy

    def deploy(self, document: Path) -> None:
        """`serve deploy`, which returns when the document is accepted."""
        subprocess.run(
            [*SERVE, "deploy", "--address", self.dashboard, str(document)],
            cwd=REPOSITORY,
            env=self.environment,
            check=True,
            capture_output=True,
            timeout=PATIENCE_SECONDS,
        )

    def ask(self, url: str) -> httpx.Response:
        """The answer to a stranger, who has no token."""
        return httpx.get(url, timeout=10)


@contextmanager
def ray_node(free_ports: Callable[[int], list[int]], *, cpus: int, resources: str) -> Iterator[RayNode]:
    """A head node of its own, ended at the end of the block."""
    with counting_proxy() as proxy:
        yield from _started(free_ports(4), cpus, resources, proxy)


def _started(ports: list[int], cpus: int, resources: str, proxy: CountingProxy) -> Iterator[RayNode]:
    gcs, dashboard, agent, client = ports
    environment = os.environ | proxy.everywhere | RAY_ENVIRONMENT
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "PYTHONPATH": str(REPOSITORY)}
    folder = tempfile.mkdtemp(prefix="ray-")  # short: Ray puts Unix sockets there
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
    """Asks again and again until it is so. Fails when patience ends."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < end, "nothing came of it in time"
        time.sleep(0.2)
