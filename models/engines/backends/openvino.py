"""OpenVINO on x86 CPUs. Needs the extra `openvino`."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from convoy.engine_names import Precision
from convoy.errors import ArtifactError, EngineFailed
from models.engines.backends.cpu import hardware
from models.engines.engine import TensorSpec

DEVICE = "CPU"
HINTS: dict[Precision, str] = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "int8": "f32"}
CAPABILITIES: dict[str, Precision] = {"FP32": "fp32", "FP16": "fp16", "BF16": "bf16", "INT8": "int8"}


class OpenVinoEngine:
    """An ONNX graph in OpenVINO, on `threads` threads.

    The precision is always set explicitly: by default OpenVINO runs an fp32 graph in bf16 if the CPU can. Layers that an int8
    graph leaves in floats run in fp32. One graph serves all batch sizes, although OpenVINO is faster with a fixed shape:
    compiling some int8 graphs for a batch of one crashes the process (docs/engines.md).
    """

    def __init__(self, path: Path, threads: int, precision: Precision) -> None:
        settings = {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # decoding and other engines use the same cores
        }
        try:
            core = openvino.Core()
            self._model = core.compile_model(core.read_model(str(path)), DEVICE, settings)
            active = self._model.get_property("INFERENCE_PRECISION_HINT").to_string()
        except Exception as error:
            raise ArtifactError(
                f"{path} cannot be loaded by OpenVINO: {error}; use the engine onnxruntime, or import the model again"
            ) from error
        if active != HINTS[precision]:
            raise ArtifactError(
                f"{path}: OpenVINO runs {active} on this CPU instead of {HINTS[precision]}: use another precision"
            )
        self.input = _spec(self._model.inputs[0])
        self.output = _spec(self._model.outputs[0])
        self._requests = threading.local()

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        shape = batch.shape[1:]
        if batch.dtype != self.input.dtype or shape != self.input.shape[1:]:  # OpenVINO would convert it silently
            raise EngineFailed(f"OpenVINO could not run the batch: {batch.dtype} {shape} is not {self.input}")
        try:
            answer = self._request().infer({0: batch}, share_inputs=True, share_outputs=True)[0]
        except Exception as error:
            raise EngineFailed(f"OpenVINO could not run the batch: {type(error).__name__}") from error
        logits: NDArray[np.float32] = answer.copy()  # the buffer is reused by this thread's next run
        return logits

    def _request(self) -> Any:
        """One per thread, since a request holds the buffers of one run."""
        request = getattr(self._requests, "own", None)
        if request is None:
            request = self._requests.own = self._model.create_infer_request()
        return request


class OpenVino:
    """The backend, in the precisions for which the CPU has instructions."""

    name = "openvino"
    platform = "openvino"
    strongly_typed = False

    @property
    def version(self) -> str:
        return str(openvino.__version__)

    def hardware(self) -> dict[str, Any]:
        return hardware()

    def precisions(self) -> tuple[Precision, ...]:
        found = openvino.Core().get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")
        return tuple(precision for name, precision in CAPABILITIES.items() if name in found)

    def prepare(self, graph: Path, precision: Precision, batches: tuple[int, ...], timings: Path) -> None:
        """Does nothing: graphs need no compilation."""

    def load(self, graph: Path, threads: int, precision: Precision, share: float = 1.0) -> OpenVinoEngine:
        return OpenVinoEngine(graph, threads, precision)


def backend() -> OpenVino:
    """The backend, as `registry.find_backend` expects it."""
    return OpenVino()


def _spec(port: Any) -> TensorSpec:
    shape = tuple(-1 if size.is_dynamic else size.get_length() for size in port.partial_shape)
    return TensorSpec(port.get_any_name(), np.dtype(port.element_type.to_dtype()), shape)
