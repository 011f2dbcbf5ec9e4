"""One thread plan for a whole node: decode pool and engine threads together fit the cgroup's cores."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from serve.config.schema import Settings

CGROUP_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True)
class ThreadPlan:
    """Threads by use: `decode` per gateway, `local` per engine in a gateway, `dedicated` per host."""

    cores: int
    decode: int
    local: int
    dedicated: int


def available_cores(cpu_max: Path = CGROUP_CPU_MAX) -> int:
    """Cores this process may use: its affinity mask, cut to the cgroup's quota (rounded up)."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = cpu_max.read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, math.ceil(int(quota) / int(period))))


def plan_threads(settings: Settings, cores: int | None = None) -> ThreadPlan:
    """Every core can decode or run; no stage gets more threads than cores, so that stages share rather than thrash."""
    total = cores or settings.cores or available_cores()
    hosts = sum(model.replicas for model in settings.models if model.placement == "dedicated")
    on_a_node = math.ceil(hosts / max(1, settings.cluster.host_nodes))
    return ThreadPlan(
        cores=total,
        decode=max(1, total // settings.gateways),
        local=max(1, total // settings.gateways),
        dedicated=max(1, total // max(1, on_a_node)),
    )
