"""TensorRT, used directly and not through ONNX Runtime. Needs the extra `tensorrt` and an NVIDIA GPU."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from convoy.engine_names import Precision
from convoy.errors import ArtifactError, EngineFailed
from models.engines.backends.cuda_memory import Buffer, CudaError, Stream
from models.engines.backends.gpu import Gpu, find_gpu
from models.engines.backends.tensorrt_import import import_tensorrt
from models.engines.backends.tensorrt_plan import build_plan
from models.engines.engine import TensorSpec, run_in_parts

if TYPE_CHECKING:
    import tensorrt

OLDEST = 11  # from this version on every network is strongly typed
PLAN = ".plan"
BATCHES = (1, 8, 32)  # for a graph without a plan
NO_MEMORY = (
    "the GPU has no memory for the engine ({}): stop other processes on it, or build for smaller batches (--batch)"
)

log = logging.getLogger("convoy.engines")


class TensorRtEngine:
    """A plan with one execution context, one stream, and one buffer each for input and output; runs take turns.

    A batch runs in the profile of the smallest bucket that holds it, and in parts if it is larger than all. `device_memory`
    is the GPU memory in bytes: weights, activations of the context, and the buffers.
    """

    def __init__(self, plan: bytes, engine: tensorrt.ICudaEngine, memory: int) -> None:
        """Raises ArtifactError if it needs more than `memory` bytes of the GPU, or more than are free."""
        trt = import_tensorrt()
        self._engine = engine
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        outputs = [name for name in names if name not in inputs]
        self.input, self.output = (_spec(trt, engine, tensors[0]) for tensors in (inputs, outputs))
        profiles = range(engine.num_optimization_profiles)
        self._most = [int(engine.get_tensor_profile_shape(self.input.name, index)[2][0]) for index in profiles]
        sizes = [max(self._most) * _row_bytes(spec) for spec in (self.input, self.output)]
        self.device_memory = len(plan) + engine.device_memory_size_v2 + sum(sizes)
        if self.device_memory > memory:
            raise ArtifactError(
                f"the engine takes {self.device_memory >> 20} MB of the GPU and may take {memory >> 20} MB: "
                "give the model a larger share (`gpus`), or build for smaller batches (--batch)"
            )
        self._lock = threading.Lock()
        try:
            self._stream = Stream()
            self._input_buffer, self._output_buffer = (Buffer(size) for size in sizes)
        except CudaError as error:
            raise ArtifactError(NO_MEMORY.format(error)) from error
        self._context = engine.create_execution_context()
        if self._context is None:
            raise ArtifactError(NO_MEMORY.format("see the messages of TensorRT"))
        self._profile = 0  # a new context has the first one
        self._context.set_tensor_address(self.input.name, self._input_buffer.address)
        self._context.set_tensor_address(self.output.name, self._output_buffer.address)

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        if batch.dtype != self.input.dtype or batch.shape[1:] != self.input.shape[1:]:
            raise EngineFailed(f"TensorRT could not run the batch: {batch.dtype} {batch.shape} is not {self.input}")
        try:
            return run_in_parts(self._run, np.ascontiguousarray(batch), self._most[-1])
        except (CudaError, RuntimeError) as error:
            raise EngineFailed(f"TensorRT could not run the batch: {error}") from error

    def _run(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        logits = np.empty((len(rows), *self.output.shape[1:]), np.float32)
        with self._lock:
            self._choose(len(rows))
            self._context.set_input_shape(self.input.name, rows.shape)
            self._input_buffer.fill(rows, self._stream)
            if not self._context.execute_async_v3(self._stream.handle):
                raise EngineFailed("TensorRT could not run the batch, see its messages")
            self._output_buffer.read(logits, self._stream)
            self._stream.wait()
        return logits

    def _choose(self, count: int) -> None:
        profile = next(index for index, most in enumerate(self._most) if count <= most)
        if profile != self._profile:
            self._context.set_optimization_profile_async(profile, self._stream.handle)
            self._profile = profile


class TensorRt:
    """The backend. A plan is next to its graph. A plan for another GPU or version is built again, at each load."""

    name = "tensorrt"
    platform = "tensorrt_plan"
    strongly_typed = True

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu

    @property
    def version(self) -> str:
        return str(import_tensorrt().__version__)

    def hardware(self) -> dict[str, Any]:
        return self._gpu.hardware()

    def precisions(self) -> tuple[Precision, ...]:
        return ("fp32", "fp16", "int8")

    def prepare(self, graph: Path, precision: Precision, batches: tuple[int, ...], timings: Path) -> None:
        graph.with_suffix(PLAN).write_bytes(build_plan(graph, batches, self._gpu, timings))

    def load(self, graph: Path, threads: int, precision: Precision, share: float = 1.0) -> TensorRtEngine:
        trt = import_tensorrt()
        runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        memory = int(share * self._gpu.memory)
        file = graph.with_suffix(PLAN)
        if file.is_file():
            plan = file.read_bytes()
            if engine := runtime.deserialize_cuda_engine(plan):
                return TensorRtEngine(plan, engine, memory)
            log.warning("%s is for another GPU or version of TensorRT; it is built again", file)
        plan = build_plan(graph, BATCHES, self._gpu, None)
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise ArtifactError(f"{graph} cannot be loaded by TensorRT, see its messages")
        return TensorRtEngine(plan, engine, memory)


def backend() -> TensorRt:
    """Raises ConfigError if TensorRT or the GPU is missing."""
    gpu = find_gpu()
    import_tensorrt(OLDEST)
    return TensorRt(gpu)


def _spec(trt: Any, engine: tensorrt.ICudaEngine, name: str) -> TensorSpec:
    dtype = np.dtype(trt.nptype(engine.get_tensor_dtype(name)))
    return TensorSpec(name, dtype, tuple(engine.get_tensor_shape(name)))


def _row_bytes(spec: TensorSpec) -> int:
    return int(np.prod(spec.shape[1:])) * spec.dtype.itemsize
