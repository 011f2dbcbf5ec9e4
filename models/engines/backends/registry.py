"""The backends by name. Each module, and the library behind it, is imported when its backend is asked for."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from convoy.errors import ConfigError, unknown
from models.engines.engine import Engine, Precision

CpuBackendName = Literal["onnxruntime", "openvino"]
GpuBackendName = Literal["onnxruntime-cuda", "onnxruntime-tensorrt", "tensorrt"]
BackendName = Literal[CpuBackendName, GpuBackendName]
CPU_BACKENDS: tuple[CpuBackendName, ...] = get_args(CpuBackendName)
GPU_BACKENDS: tuple[GpuBackendName, ...] = get_args(GpuBackendName)
BACKENDS: tuple[BackendName, ...] = (*CPU_BACKENDS, *GPU_BACKENDS)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
MODULES: dict[BackendName, str] = {
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "onnxruntime-cuda": "onnxruntime_cuda",
    "onnxruntime-tensorrt": "onnxruntime_tensorrt",
    "tensorrt": "tensorrt",
}
EXTRAS: dict[BackendName, str] = {
    "onnxruntime": "cpu",
    "openvino": "openvino",
    "onnxruntime-cuda": "gpu",
    "onnxruntime-tensorrt": "tensorrt",
    "tensorrt": "tensorrt",
}


class Backend(Protocol):
    """A library that runs graphs."""

    @property
    def name(self) -> str: ...

    @property
    def platform(self) -> str:
        """What the Open Inference Protocol calls it."""
        ...

    @property
    def version(self) -> str: ...

    @property
    def strongly_typed(self) -> bool:
        """Whether precision is what the graph says (casts to fp16, symmetric int8), and not what the engine is asked for."""
        ...

    def hardware(self) -> dict[str, Any]:
        """What of this machine its engines depend on."""
        ...

    def precisions(self) -> tuple[Precision, ...]:
        """Those that this machine has instructions for: what is emulated is not offered."""
        ...

    def prepare(self, graph: Path, precision: Precision, batches: tuple[int, ...], timings: Path) -> None:
        """Writes beside an ONNX graph what takes long to make of it, for these batch sizes; `timings` is a folder for what
        one build may learn from another. Raises ArtifactError."""
        ...

    def load(self, graph: Path, threads: int, precision: Precision, share: float = 1.0) -> Engine:
        """The engine of an ONNX graph, on a GPU within this share of its memory. Raises ArtifactError."""
        ...


def find_backend(name: str) -> Backend:
    """Raises NotFound for a backend that nobody knows, ConfigError for one that is not installed or has no card here."""
    known = next((one for one in BACKENDS if one == name), None)
    if known is None:
        raise unknown("engine", name, BACKENDS)
    try:
        module = importlib.import_module(f"models.engines.backends.{MODULES[known]}")
    except ModuleNotFoundError as error:
        remedy = f"pip install 'convoy-serve[{EXTRAS[known]}]'"
        raise ConfigError(f"the engine {name} needs {error.name}; install it with: {remedy}") from error
    backend: Backend = module.backend()
    return backend


def installed_backends() -> list[Backend]:
    """Those whose library, and card, is here."""
    found = []
    for name in BACKENDS:
        try:
            found.append(find_backend(name))
        except ConfigError:
            continue
    return found


def load_engine(graph: Path, threads: int) -> Engine:
    """A graph as it is in the default engine. Raises ArtifactError."""
    return find_backend("onnxruntime").load(graph, threads, "fp32")
