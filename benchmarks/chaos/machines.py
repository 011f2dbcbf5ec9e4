"""A server on three machines, simulated by namespaces, and the loss of a machine with a host.

A lost machine is replaced by a new one, as Kubernetes replaces a pod.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.chaos.namespaces import HEAD, Cluster, Node, cluster
from benchmarks.chaos.stage import DIGIT, HOSTED, LOCAL, PICTURE, Stage, processes, title
from benchmarks.chaos.waiting import until
from loadtest.plan import Traffic
from serve.cluster.service_discovery import METER_RESOURCE
from serve.config.loading import parse_settings
from serve.deployments.applications import GATEWAY_RESOURCE, STEWARD_RESOURCE
from serve.deployments.serve_config import deploy_yaml

FRONT = {GATEWAY_RESOURCE: 1.0, METER_RESOURCE: 1.0, STEWARD_RESOURCE: 1.0}
BEHIND = {METER_RESOURCE: 1.0}


@dataclass
class Machines(Stage):
    """Ray's head with the gateway, and two machines (`behind`) with a host each."""

    cluster: Cluster | None = None
    behind: list[Node] = field(default_factory=list)

    def add(self) -> None:
        """Starts another machine for a host."""
        assert self.cluster is not None
        self.behind.append(self.cluster.add(1, BEHIND))

    def replace(self, lost: Node) -> None:
        """Starts a new machine for a lost one, and waits until its host runs."""
        self.behind.remove(lost)
        self.add()
        self.until_healthy()


@contextmanager
def machines(folder: Path) -> Iterator[Stage]:
    """The server. Works only inside of `unshare`: see `benchmarks.chaos.namespaces.isolated`."""
    with cluster() as running:
        settings = parse_settings(
            {
                "listen": {"host": "0.0.0.0"},
                "runtime_dir": str(running.runtime),
                "cores": 1,
                "cluster": {"gateway_nodes": 1, "host_nodes": 2},
                "models": [{"name": LOCAL}, {"name": HOSTED, "placement": "dedicated", "replicas": 2, "threads": 1}],
            }
        )
        expected = {"ServeController": 1, "ServeReplica:gateway": 1, "ServeReplica:host-": 2, "ServeReplica:meter": 3}
        traffic = (Traffic(LOCAL, payload=DIGIT), Traffic(HOSTED, payload=PICTURE))
        stage = Machines(settings, folder, HEAD, expected, traffic, cluster=running)
        running.add(0, FRONT)
        stage.add()
        stage.add()
        document = folder / "serve.yaml"
        document.write_text(deploy_yaml(settings))
        until(lambda: running.deployed(document))
        yield stage


def lose_machine(stage: Stage) -> None:
    """Cuts a machine from the network, kills it, and replaces it."""
    assert isinstance(stage, Machines)
    lost = stage.behind[0]
    lost.cut()
    lost.kill()
    stage.replace(lost)


def lose_raylet(stage: Stage) -> None:
    """Kills the raylet of a machine, whereupon its `ray start` ends, and replaces the machine."""
    assert isinstance(stage, Machines)
    lost = stage.behind[0]
    (raylet,) = [pid for pid in processes(lost.process.pid) if Path(title(pid).split("\0")[0]).name == "raylet"]
    os.kill(raylet, signal.SIGKILL)
    lost.process.wait()
    stage.replace(lost)
