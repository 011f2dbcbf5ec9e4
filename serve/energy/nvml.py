"""NVIDIA GPUs through NVML (package nvidia-ml-py, of the extra `gpu`): energy, power, utilisation, memory.

`nvmlDeviceGetTotalEnergyConsumption` counts millijoules since the driver was loaded, from Volta on; for older GPUs the
power readings are integrated.
"""

from __future__ import annotations

import importlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from serve.energy.source import Method, SourceGone, SourceName

log = logging.getLogger("convoy.power")


@dataclass(frozen=True)
class GpuState:
    """Readings of one moment; None: this GPU does not report the value. Utilization is 0 to 1."""

    uuid: str
    joules: float
    power_watts: float | None
    limit_watts: float | None
    utilization: float | None
    memory_total: int | None
    memory_used: int | None


class Gpu:
    """One GPU. `api` is the module pynvml, or a stand-in with its functions. Thread-safe."""

    source: SourceName = "nvml"
    method: Method = "measured"
    idle_watts: float | None = None

    def __init__(self, api: Any, index: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._handle = api.nvmlDeviceGetHandleByIndex(index)
        self._clock = clock
        self._lock = threading.Lock()
        self.device = f"cuda:{index}"
        self.chip = f"gpu{index}"
        self.uuid = _text(api.nvmlDeviceGetUUID(self._handle))
        limit = self._try(api.nvmlDeviceGetEnforcedPowerLimit)
        self.cap_watts: float | None = None if limit is None else limit / 1e3
        self._counts = self._try(api.nvmlDeviceGetTotalEnergyConsumption) is not None
        self._last = self._counter() if self._counts else 0.0
        self._read_at = clock()
        self._total = 0.0

    def joules(self) -> float:
        """Energy used since this object was made. Raises SourceGone."""
        with self._lock:
            try:
                self._total += self._step()
            except self._api.NVMLError as error:
                raise SourceGone(f"{self.chip}: {error}") from error
            return self._total

    def state(self) -> GpuState:
        """The current readings. Raises SourceGone."""
        joules = self.joules()
        milliwatts = self._try(self._api.nvmlDeviceGetPowerUsage)
        utilization = self._try(self._api.nvmlDeviceGetUtilizationRates)
        memory = self._try(self._api.nvmlDeviceGetMemoryInfo)
        return GpuState(
            self.uuid,
            joules,
            None if milliwatts is None else milliwatts / 1e3,
            self.cap_watts,
            None if utilization is None else utilization.gpu / 100,
            None if memory is None else int(memory.total),
            None if memory is None else int(memory.used),
        )

    def _counter(self) -> float:
        return float(self._api.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1e3

    def _step(self) -> float:
        """Joules since the last call."""
        if self._counts:
            before, self._last = self._last, self._counter()
            return max(0.0, self._last - before)  # a reloaded driver counts from zero
        watts = float(self._api.nvmlDeviceGetPowerUsage(self._handle)) / 1e3
        before, self._read_at = self._read_at, self._clock()
        return watts * (self._read_at - before)

    def _try(self, function: Callable[[Any], Any]) -> Any:
        """A reading that not every GPU supports; None where this one does not."""
        try:
            return function(self._handle)
        except self._api.NVMLError:
            return None


def find_gpus(api: Any = None) -> list[Gpu]:
    """The GPUs that NVML lists; none without the package or a driver. Tests pass a stand-in for pynvml as `api`."""
    if api is None:
        try:
            api = importlib.import_module("pynvml")
        except ImportError:
            return []
    try:
        api.nvmlInit()
        count = api.nvmlDeviceGetCount()
    except api.NVMLError as error:
        log.info("no GPU through NVML: %s", error)
        return []
    found = []
    for index in range(count):
        try:
            found.append(Gpu(api, index))
        except api.NVMLError as error:
            log.warning("gpu%d cannot be read: %s", index, error)
    return found


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
