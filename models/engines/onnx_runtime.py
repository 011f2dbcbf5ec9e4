"""ONNX Runtime, the engine of CPUs by default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from convoy.errors import ArtifactError, EngineFailed
from models.engines.engine import Precision, TensorSpec

DTYPES: dict[str, np.dtype[Any]] = {
    "tensor(uint8)": np.dtype(np.uint8),
    "tensor(float)": np.dtype(np.float32),
}
SILENT = 4  # ONNX Runtime's own log: fatal only; failures are raised


class OnnxRuntimeEngine:
    """An ONNX graph in ONNX Runtime on the CPU, `threads` wide, without spinning: cores are shared with decoding."""

    def __init__(self, path: Path, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = SILENT
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            self.input = _spec(self._session.get_inputs()[0])
            self.output = _spec(self._session.get_outputs()[0])
        except Exception as error:
            raise ArtifactError(f"{path} cannot be loaded: {error}") from error
        self._outputs = [self.output.name]

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        try:
            logits: NDArray[np.float32] = self._session.run(self._outputs, {self.input.name: batch})[0]
        except Exception as error:
            raise EngineFailed(f"ONNX Runtime could not run the batch: {type(error).__name__}") from error
        return logits


class OnnxRuntime:
    """The backend. On CPUs it has kernels for fp32 and int8; fp16 and bf16 would be cast to fp32 around every layer."""

    name = "onnxruntime"
    platform = "onnxruntime_onnx"

    @property
    def version(self) -> str:
        return str(onnxruntime.__version__)

    def precisions(self) -> tuple[Precision, ...]:
        return ("fp32", "int8")

    def load(self, graph: Path, threads: int, precision: Precision) -> OnnxRuntimeEngine:
        return OnnxRuntimeEngine(graph, threads)


def backend() -> OnnxRuntime:
    return OnnxRuntime()


def _spec(value: Any) -> TensorSpec:
    shape = tuple(size if isinstance(size, int) else -1 for size in value.shape)
    return TensorSpec(value.name, DTYPES[value.type], shape)
