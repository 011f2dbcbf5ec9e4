"""Which sources this machine has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from serve.config import Power
from serve.power.cpu_time import machine_cores
from serve.power.declared import DeclaredMachine
from serve.power.nvml import Gpu, find_gpus
from serve.power.rapl import POWERCAP, find_rapl
from serve.power.sources import Source


def find_sources(power: Power, gpus: Sequence[Gpu] | None = None, powercap: Path = POWERCAP) -> list[Source]:
    """GPUs by NVML and CPUs by RAPL; the declared model only where no CPU counter can be read."""
    found: list[Source] = [*(find_gpus() if gpus is None else gpus)]
    zones = find_rapl(powercap)
    found += zones
    if not zones and power.declared:
        assert power.idle_watts is not None
        assert power.busy_watts is not None
        found.append(DeclaredMachine(power.idle_watts, power.busy_watts, machine_cores()))
    return found
