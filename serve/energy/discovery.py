"""Finds the energy sources of this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from serve.config.schema import Power
from serve.energy.declared_model import DeclaredMachine
from serve.energy.nvml import Gpu, find_gpus
from serve.energy.rapl import POWERCAP, find_rapl
from serve.energy.source import Source
from serve.telemetry.proc import machine_cores


def find_sources(power: Power, gpus: Sequence[Gpu] | None = None, powercap: Path = POWERCAP) -> list[Source]:
    """GPUs by NVML and CPUs by RAPL; the declared model only where no RAPL counter can be read."""
    found: list[Source] = [*(find_gpus() if gpus is None else gpus)]
    zones = find_rapl(powercap)
    found += zones
    if not zones and power.declared:
        assert power.idle_watts is not None
        assert power.busy_watts is not None
        found.append(DeclaredMachine(power.idle_watts, power.busy_watts, machine_cores()))
    return found
