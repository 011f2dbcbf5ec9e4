"""The backends by name. Each module, and the library behind it, is imported when its backend is asked for."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Literal, Protocol, get_args

from convoy.errors import ConfigError, unknown
from models.engines.engine import Engine, Precision

BackendName = Literal["onnxruntime", "openvino"]
BACKENDS: tuple[BackendName, ...] = get_args(BackendName)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
MODULES: dict[BackendName, str] = {"onnxruntime": "onnx_runtime", "openvino": "open_vino"}
EXTRAS: dict[BackendName, str] = {"onnxruntime": "cpu", "openvino": "openvino"}


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

    def precisions(self) -> tuple[Precision, ...]:
        """Those that this machine has instructions for: what is emulated is not offered."""
        ...

    def load(self, graph: Path, threads: int, precision: Precision) -> Engine:
        """The engine of an ONNX graph. Raises ArtifactError."""
        ...


def find_backend(name: str) -> Backend:
    """Raises NotFound for a backend that nobody knows, ConfigError for one that is not installed."""
    known = next((one for one in BACKENDS if one == name), None)
    if known is None:
        raise unknown("engine", name, BACKENDS)
    try:
        module = importlib.import_module(f"models.engines.{MODULES[known]}")
    except ModuleNotFoundError as error:
        remedy = f"pip install 'convoy-serve[{EXTRAS[known]}]'"
        raise ConfigError(f"the engine {name} needs {error.name}; install it with: {remedy}") from error
    backend: Backend = module.backend()
    return backend


def installed_backends() -> list[Backend]:
    """Those whose library is here."""
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
