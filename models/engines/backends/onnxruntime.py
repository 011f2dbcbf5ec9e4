"""ONNX Runtime on CPUs: the default backend, and the reference in accuracy checks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from convoy.engine_names import Precision
from convoy.errors import ArtifactError, EngineFailed
from models.engines.backends.cpu import hardware
from models.engines.engine import TensorSpec

Provider = tuple[str, dict[str, str]]  # an execution provider and its options
CPU: Provider = ("CPUExecutionProvider", {})

DTYPES: dict[str, np.dtype[Any]] = {
    "tensor(uint8)": np.dtype(np.uint8),
    "tensor(float)": np.dtype(np.float32),
}
SILENT = 4  # log level "fatal" of ONNX Runtime; its failures are raised


class OnnxRuntimeEngine:
    """An ONNX graph in ONNX Runtime: on `threads` CPU threads, or on other providers; the first one must support the graph."""

    def __init__(self, path: Path, threads: int, providers: Sequence[Provider] = (CPU,)) -> None:
        options = session_options(threads)
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=list(providers))
            self._session.disable_fallback()  # a failed run must not continue on the CPU, at another speed
            self.input = _spec(self._session.get_inputs()[0])
            self.output = _spec(self._session.get_outputs()[0])
        except Exception as error:
            raise ArtifactError(f"{path} cannot be loaded: {error}; import or compile the model again") from error
        active = self._session.get_providers()
        if active[0] != providers[0][0]:
            raise ArtifactError(
                f"{path} cannot be loaded by {providers[0][0]}, only by {active[0]}: install the provider's libraries"
            )
        self._outputs = [self.output.name]

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        try:
            logits: NDArray[np.float32] = self._session.run(self._outputs, {self.input.name: batch})[0]
        except Exception as error:
            raise EngineFailed(f"ONNX Runtime could not run the batch: {type(error).__name__}") from error
        return logits


class OnnxRuntime:
    """The backend. Its CPU kernels are fp32 and int8; fp16 and bf16 would be cast to fp32 around every layer."""

    name = "onnxruntime"
    platform = "onnxruntime_onnx"
    strongly_typed = False

    @property
    def version(self) -> str:
        return str(onnxruntime.__version__)

    def hardware(self) -> dict[str, Any]:
        return hardware()

    def precisions(self) -> tuple[Precision, ...]:
        return ("fp32", "int8")

    def prepare(self, graph: Path, precision: Precision, batches: tuple[int, ...], timings: Path) -> None:
        """Does nothing: graphs need no compilation."""

    def load(self, graph: Path, threads: int, precision: Precision, share: float = 1.0) -> OnnxRuntimeEngine:
        return OnnxRuntimeEngine(graph, threads)


def backend() -> OnnxRuntime:
    """The backend, as `registry.find_backend` expects it."""
    return OnnxRuntime()


def session_options(threads: int) -> Any:
    """Options of a session on `threads` threads: silent, and without spinning, since decoding uses the same cores."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = SILENT
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _spec(value: Any) -> TensorSpec:
    shape = tuple(size if isinstance(size, int) else -1 for size in value.shape)
    return TensorSpec(value.name, DTYPES[value.type], shape)
