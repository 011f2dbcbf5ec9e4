"""The backends by name. A backend's module and its library are imported on first use."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Protocol

from convoy.engine_names import BACKENDS, BackendName, Precision
from convoy.errors import ConfigError, unknown
from models.engines.engine import Engine

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
    """A library that runs ONNX graphs on one kind of device."""

    @property
    def name(self) -> str:
        """The backend's name in configuration files and engine manifests."""
        ...

    @property
    def platform(self) -> str:
        """The backend's name in the Open Inference Protocol."""
        ...

    @property
    def version(self) -> str:
        """Version of the library; another version makes other engines."""
        ...

    @property
    def strongly_typed(self) -> bool:
        """Whether precision follows from the types in the graph (casts to fp16, symmetric int8), not from an option."""
        ...

    def hardware(self) -> dict[str, Any]:
        """The properties of this machine that its engines depend on, JSON-ready."""
        ...

    def precisions(self) -> tuple[Precision, ...]:
        """The precisions for which this machine has instructions. Emulated precisions are left out: they are slower than fp32."""
        ...

    def prepare(self, graph: Path, precision: Precision, batches: tuple[int, ...], timings: Path) -> None:
        """Compiles a graph for these batch sizes into files next to it, if the backend compiles graphs.

        `timings` is a folder in which speeds of kernels are kept for later builds. Raises ArtifactError.
        """
        ...

    def load(self, graph: Path, threads: int, precision: Precision, share: float = 1.0) -> Engine:
        """Loads a graph, on `threads` CPU threads or within `share` (0..1] of the GPU's memory. Raises ArtifactError."""
        ...


def find_backend(name: str) -> Backend:
    """Raises NotFound for an unknown name, ConfigError if the backend is not installed or its GPU is missing."""
    known = next((backend for backend in BACKENDS if backend == name), None)
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
    """The backends whose library, and GPU if they need one, is present."""
    found = []
    for name in BACKENDS:
        try:
            found.append(find_backend(name))
        except ConfigError:
            continue
    return found


def load_engine(graph: Path, threads: int) -> Engine:
    """Loads a graph in the default backend, as the reference for accuracy checks. Raises ArtifactError."""
    return find_backend("onnxruntime").load(graph, threads, "fp32")
