"""Simulated energy sources: a powercap folder, a GPU driver, and a machine whose power depends on its load."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from serve.energy.source import CPU, Method, SourceGone, SourceName

RANGE_UJ = 65_532_610_987


def write_zone(root: Path, name: str, zone: str, energy_uj: int, cap_uw: int | None = None) -> Path:
    """Writes the files that the kernel has for a RAPL zone."""
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "name").write_text(zone + "\n")
    (folder / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    if cap_uw is not None:
        (folder / "constraint_0_power_limit_uw").write_text(f"{cap_uw}\n")
    return folder


class NVMLError(Exception):
    """The exception of pynvml."""


@dataclass
class Driver:
    """pynvml's functions over simulated GPUs. A missing value means that the GPU does not support it."""

    gpus: list[dict[str, float]]
    broken: bool = False
    NVMLError: type[Exception] = NVMLError

    def nvmlInit(self) -> None:  # noqa: N802
        if self.broken:
            raise NVMLError("driver not loaded")

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> dict[str, float]:  # noqa: N802
        return self.gpus[index]

    def nvmlDeviceGetUUID(self, gpu: dict[str, float]) -> str:  # noqa: N802
        return f"GPU-{self.gpus.index(gpu)}"

    def nvmlDeviceGetTotalEnergyConsumption(self, gpu: dict[str, float]) -> float:  # noqa: N802
        return self._read(gpu, "millijoules")

    def nvmlDeviceGetPowerUsage(self, gpu: dict[str, float]) -> float:  # noqa: N802
        return self._read(gpu, "milliwatts")

    def nvmlDeviceGetEnforcedPowerLimit(self, gpu: dict[str, float]) -> float:  # noqa: N802
        return self._read(gpu, "limit")

    def nvmlDeviceGetUtilizationRates(self, gpu: dict[str, float]) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(gpu=self._read(gpu, "percent"))

    def nvmlDeviceGetMemoryInfo(self, gpu: dict[str, float]) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(total=self._read(gpu, "memory"), used=self._read(gpu, "used"))

    def _read(self, gpu: dict[str, float], name: str) -> float:
        if self.broken or name not in gpu:
            raise NVMLError("Not Supported")
        return gpu[name]


@dataclass
class Machine:
    """A chip that draws `idle` watts, plus `per_core` for each busy core; tests advance its clock."""

    idle: float = 30.0
    per_core: float = 20.0
    now: float = 100.0
    used: float = 5.0
    joules_used: float = 0.0
    gone: bool = False
    chip: str = "package-0"
    device: str = CPU
    source: SourceName = "rapl"
    method: Method = "measured"
    idle_watts: float | None = None
    cap_watts: float | None = 95.0

    def pass_time(self, seconds: float, core_seconds: float = 0.0) -> None:
        self.now += seconds
        self.used += core_seconds
        self.joules_used += self.idle * seconds + self.per_core * core_seconds

    def joules(self) -> float:
        if self.gone:
            raise SourceGone("unplugged")
        return self.joules_used

    def clock(self) -> float:
        return self.now

    def busy_cores(self) -> float:
        return self.used
