"""A Ray cluster on one machine: every node has its own network, processes and files, as if it were another machine.

Works only inside of `unshare` (see `isolated`). Each node is connected to a bridge by a veth pair, its cable.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.chaos.waiting import until
from serve.deployments.local import RAY_ENVIRONMENT

REPOSITORY = Path(__file__).resolve().parents[2]
RAY = [sys.executable, "-c", "from ray.scripts.scripts import main; main()"]
SERVE = [sys.executable, "-c", "from ray.serve.scripts import cli; cli()"]
BRIDGE, HERE, HEAD = "convoy0", "10.77.0.254", "10.77.0.1"
# Without its own MAC address, a bridge has the lowest one of its cables. It would change with that cable, and the nodes would use
# the old address until their ARP entries expire, a minute later.
BRIDGE_MAC = "02:00:00:00:00:01"
GCS_PORT, DASHBOARD_PORT = 6379, 8265
STARTED = "Ray runtime started"
SLOW_MACHINE = {"RAY_raylet_start_wait_time_s": "120"}
# Runs in the node: mounts its own runtime folder, waits for a line that signals that the cable exists, configures it, starts Ray.
INSIDE = (
    'mount -t tmpfs -o mode=700 tmpfs "$1" && read -r _ && ip link set lo up && ip addr add "$2/24" dev "$3"'
    ' && ip link set "$3" up && shift 3 && exec "$@"'
)


def isolated(*command: str) -> list[str]:
    """The command line that runs a command in new namespaces, as root inside of them only."""
    own = [] if os.getuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", *own, "--net", "--mount", "--", *command]


@dataclass
class Node:
    """A running node. Its processes end when `process` does."""

    address: str
    cable: str
    process: subprocess.Popen[str]

    def cut(self) -> None:
        """Cuts the node from the network, so that its last messages are lost."""
        ip("link", "set", self.cable, "down")

    def kill(self) -> None:
        """Kills all of its processes at once."""
        self.process.kill()
        self.process.wait()


@dataclass
class Cluster:
    """Nodes on a bridge, the head first. `runtime` is a path at which every node has its own folder."""

    runtime: Path
    folder: Path
    environment: dict[str, str]
    ends: ExitStack
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def add(self, cpus: int, resources: dict[str, float]) -> Node:
        """Starts a node and waits until it runs: five starts at once would overload a small machine."""
        number = next(self._numbers)
        address, cable = f"10.77.0.{number}", f"cable{number}"
        start = [
            *RAY, "start", "--block", "--disable-usage-stats", f"--node-ip-address={address}", f"--num-cpus={cpus}",
            f"--resources={json.dumps(resources)}", "--object-store-memory=80000000",
        ]  # fmt: skip
        if number == 1:
            start += [
                "--head", f"--port={GCS_PORT}", f"--temp-dir={self.folder}", "--include-dashboard=true",
                f"--dashboard-host={address}", f"--dashboard-port={DASHBOARD_PORT}",
            ]  # fmt: skip
        else:
            start += [f"--address={HEAD}:{GCS_PORT}"]
        own = ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
        inside = [*own, "bash", "-c", INSIDE, "node", str(self.runtime), address, f"{cable}n", *start]
        log_path = self.folder / f"node-{number}.log"
        with log_path.open("w") as log:
            process = subprocess.Popen(
                inside, cwd=REPOSITORY, env=self.environment, stdin=subprocess.PIPE, stdout=log, stderr=log, text=True
            )
        node = Node(address, cable, process)
        self.ends.callback(node.kill)
        ip("link", "add", cable, "type", "veth", "peer", "name", f"{cable}n")
        ip("link", "set", cable, "master", BRIDGE, "up")
        ip("link", "set", f"{cable}n", "netns", str(process.pid))
        assert process.stdin is not None
        process.stdin.write("connected\n")
        process.stdin.flush()
        until(lambda: STARTED in log_path.read_text() or process.poll() is not None)
        assert process.poll() is None, log_path.read_text()[-2000:]
        return node

    def deploy(self, document: Path) -> None:
        """Runs `serve deploy`, which returns when the document is accepted."""
        command = [*SERVE, "deploy", "--address", f"http://{HEAD}:{DASHBOARD_PORT}", str(document)]
        subprocess.run(command, cwd=REPOSITORY, env=self.environment, check=True, capture_output=True, timeout=300)

    def deployed(self, document: Path) -> bool:
        """Deploys a document. Returns whether it was accepted: the cluster refuses it while its head starts."""
        try:
            self.deploy(document)
        except subprocess.CalledProcessError:
            return False
        return True


@contextmanager
def cluster() -> Iterator[Cluster]:
    """An empty cluster. Its nodes are killed at the end of the block."""
    ip("link", "set", "lo", "up")
    ip("link", "add", BRIDGE, "address", BRIDGE_MAC, "type", "bridge")
    ip("addr", "add", f"{HERE}/24", "dev", BRIDGE)
    ip("link", "set", BRIDGE, "up")
    environment = (
        os.environ | RAY_ENVIRONMENT | SLOW_MACHINE | {"RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(REPOSITORY)}
    )
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder, ExitStack() as ends:
        runtime = Path(folder) / "own"
        runtime.mkdir()
        yield Cluster(runtime, Path(folder), environment, ends)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, timeout=30)
