"""The NVIDIA GPU that this process uses, read by NVML (package nvidia-ml-py, of the extra `gpu`)."""

from __future__ import annotations

import importlib
import os
import platform
from dataclasses import dataclass
from typing import Any

from convoy.errors import ConfigError


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU. `capability` is its compute capability, such as 9.0; `memory` is in bytes."""

    name: str
    capability: str
    driver: str
    memory: int

    def hardware(self) -> dict[str, Any]:
        """The properties that its engines depend on, JSON-ready. Part of stored engines' recipes, so names must not change."""
        return {
            "machine": platform.machine(),
            "card": self.name,
            "capability": self.capability,
            "driver": self.driver,
        }


def find_gpu() -> Gpu:
    """The first GPU that this process may use, which is device 0 of CUDA. Raises ConfigError if there is none."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    if visible in ("", "-1"):
        raise _no_gpu("CUDA_VISIBLE_DEVICES hides them all: give the model a share of one (`gpus`)")
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ModuleNotFoundError as error:
        raise _no_gpu(f"{error.name} is missing: pip install 'convoy-serve[gpu]'") from error
    try:
        nvml.nvmlInit()
        find = nvml.nvmlDeviceGetHandleByIndex if visible.isdigit() else nvml.nvmlDeviceGetHandleByUUID
        return _read(nvml, find(int(visible) if visible.isdigit() else visible))
    except nvml.NVMLError as error:
        raise _no_gpu(
            f"{error}: install NVIDIA's driver, give the container access to its GPUs, or use an engine for CPUs"
        ) from error


def _read(nvml: Any, handle: Any) -> Gpu:
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    return Gpu(
        name=str(nvml.nvmlDeviceGetName(handle)),
        capability=f"{major}.{minor}",
        driver=str(nvml.nvmlSystemGetDriverVersion()),
        memory=int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
    )


def _no_gpu(reason: str) -> ConfigError:
    return ConfigError(f"no GPU: {reason}")
