"""The thread plan of a node: sizes of the decode pools and of the engines' thread pools."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from serve.config.schema import ModelConfig, Settings

# LeNet-5 (0.3 million) gains nothing from a second thread, which takes a core; those for CIFAR-10 (12 million and more) do.
SMALL_MACS = 2_000_000
CGROUP_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True)
class ThreadPlan:
    """Numbers of threads: `decode` of each gateway, `local` of each engine in a gateway, `dedicated` of each host."""

    cores: int
    decode: int
    local: int
    dedicated: int


def available_cores(cpu_max: Path = CGROUP_CPU_MAX) -> int:
    """Cores that this process may use: its affinity mask, limited by the cgroup v2 CPU quota (rounded up)."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = cpu_max.read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, math.ceil(int(quota) / int(period))))


def engine_threads(model: ModelConfig, macs: int, planned: int) -> int:
    """Threads of a model's engine: those configured, or else the planned ones, but one for a small network.

    `macs`: multiply-accumulates of the network per row, 0 if they are not known. `planned`: `local` or `dedicated` of the plan.
    """
    return model.threads or (1 if 0 < macs < SMALL_MACS else planned)


def plan_threads(settings: Settings, cores: int | None = None) -> ThreadPlan:
    """Divides the cores of a node.

    Each stage may use all cores of its process, because stages alternate in time: fewer threads would leave cores idle. No stage
    gets more threads than cores, because these would only compete.
    """
    total = cores or settings.cores or available_cores()
    hosts = sum(model.replicas for model in settings.models if model.placement == "dedicated")
    hosts_per_node = math.ceil(hosts / max(1, settings.cluster.host_nodes))
    return ThreadPlan(
        cores=total,
        decode=max(1, total // settings.gateways),
        local=max(1, total // settings.gateways),
        dedicated=max(1, total // max(1, hosts_per_node)),
    )
