"""Engines: an artifact's graph loaded on a device. ONNX Runtime is the one on CPUs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from convoy.errors import ArtifactError, EngineFailed

DTYPES: dict[str, np.dtype[Any]] = {
    "tensor(uint8)": np.dtype(np.uint8),
    "tensor(float)": np.dtype(np.float32),
}
SILENT = 4  # ONNX Runtime's own log: fatal only; failures are raised


@dataclass(frozen=True)
class TensorSpec:
    """Name, element type and shape of an input or output; -1 is the batch dimension."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class Engine(Protocol):
    """Runs batches. Thread-safe; releases the GIL while it runs."""

    @property
    def input(self) -> TensorSpec: ...

    @property
    def output(self) -> TensorSpec: ...

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Logits [n, classes] of a batch [n, …]. Raises EngineFailed."""
        ...


class OnnxEngine:
    """An ONNX graph in ONNX Runtime on the CPU, `threads` wide, without spinning: cores are shared with decoding."""

    def __init__(self, path: Path, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = SILENT
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ArtifactError(f"{path} cannot be loaded: {error}") from error
        self.input = _spec(self._session.get_inputs()[0])
        self.output = _spec(self._session.get_outputs()[0])
        self._outputs = [self.output.name]

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        try:
            logits: NDArray[np.float32] = self._session.run(self._outputs, {self.input.name: batch})[0]
        except Exception as error:
            raise EngineFailed(f"ONNX Runtime could not run the batch: {type(error).__name__}") from error
        return logits


def load_engine(path: Path, threads: int) -> Engine:
    """The engine of a graph. Raises ArtifactError."""
    return OnnxEngine(path, threads)


def _spec(value: Any) -> TensorSpec:
    shape = tuple(size if isinstance(size, int) else -1 for size in value.shape)
    return TensorSpec(value.name, DTYPES[value.type], shape)
