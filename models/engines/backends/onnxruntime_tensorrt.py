"""ONNX Runtime's TensorRT execution provider, with CUDA's for other layers. Needs the extra `tensorrt` and an NVIDIA GPU."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from convoy.engine_names import Precision
from models.engines.backends.gpu import Gpu, find_gpu
from models.engines.backends.onnxruntime import OnnxRuntimeEngine, Provider
from models.engines.backends.onnxruntime_cuda import cuda_provider, require_provider
from models.engines.backends.tensorrt_import import import_tensorrt
from models.engines.engine import TensorSpec, run_in_parts

TENSORRT = "TensorrtExecutionProvider"
BATCHES = (1, 8, 32)  # for a graph without prepared caches
FLAGS: dict[Precision, str] = {"fp16": "trt_fp16_enable", "int8": "trt_int8_enable"}  # needed by TensorRT before 11
SIZES = "batches.json"
CACHES = ".caches"  # suffix of the folder next to a graph


class TensorRtProviderEngine(OnnxRuntimeEngine):
    """A graph in TensorRT, through ONNX Runtime; a batch larger than its profile runs in parts of `most` rows."""

    def __init__(self, path: Path, threads: int, providers: tuple[Provider, ...], most: int) -> None:
        super().__init__(path, threads, providers)
        self._most = most

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        return run_in_parts(super().run, batch, self._most)


class OnnxRuntimeTensorRt:
    """The backend, with the version of TensorRT that ONNX Runtime was built for.

    Precision follows from the types in the graph. TensorRT's compiled caches are in a folder next to the graph.
    """

    name = "onnxruntime-tensorrt"
    platform = "onnxruntime_onnx"
    strongly_typed = True

    def __init__(self, gpu: Gpu, tensorrt_version: str) -> None:
        self._gpu = gpu
        self._tensorrt = tensorrt_version

    @property
    def version(self) -> str:
        return f"{onnxruntime.__version__}+tensorrt{self._tensorrt}"

    def hardware(self) -> dict[str, Any]:
        return self._gpu.hardware()

    def precisions(self) -> tuple[Precision, ...]:
        return ("fp32", "fp16", "int8")

    def prepare(self, graph: Path, precision: Precision, batches: tuple[int, ...], timings: Path) -> None:
        """Compiles the graph into caches next to it, so that a load is fast."""
        caches = graph.with_suffix(CACHES)
        caches.mkdir()
        (caches / SIZES).write_text(json.dumps(batches))
        self._load(graph, 1, precision, self._gpu.memory, caches, timings)

    def load(self, graph: Path, threads: int, precision: Precision, share: float = 1.0) -> TensorRtProviderEngine:
        caches = graph.with_suffix(CACHES)
        known = caches if caches.is_dir() else None
        return self._load(graph, threads, precision, int(share * self._gpu.memory), known)

    def _load(
        self,
        graph: Path,
        threads: int,
        precision: Precision,
        memory: int,
        caches: Path | None,
        timings: Path | None = None,
    ) -> TensorRtProviderEngine:
        sizes = json.loads((caches / SIZES).read_text()) if caches else BATCHES
        input_spec = OnnxRuntimeEngine(graph, threads).input
        provider = tensorrt_provider(precision, memory, input_spec, sizes, caches, timings)
        return TensorRtProviderEngine(graph, threads, (provider, cuda_provider(memory)), max(sizes))


def backend() -> OnnxRuntimeTensorRt:
    """Raises ConfigError if TensorRT, the provider or the GPU is missing."""
    os.environ.setdefault(
        "NVIDIA_TF32_OVERRIDE", "0"
    )  # fp32 must not become TF32, and the provider has no option for it
    require_provider(TENSORRT)
    gpu = find_gpu()
    return OnnxRuntimeTensorRt(gpu, str(import_tensorrt().__version__))


def tensorrt_provider(
    precision: Precision,
    memory: int,
    input_spec: TensorSpec,
    batches: tuple[int, ...],
    caches: Path | None,
    timings: Path | None,
) -> Provider:
    """The provider with one optimisation profile: from one row to the largest batch, for which kernels are optimised.

    ONNX Runtime only ever runs the first of several profiles (github.com/microsoft/onnxruntime/pull/31624).
    """
    row = "x".join(str(size) for size in input_spec.shape[1:])
    least, most = (f"{input_spec.name}:{size}x{row}" for size in (1, max(batches)))
    options = {
        "device_id": "0",
        "trt_max_workspace_size": str(memory),
        "trt_profile_min_shapes": least,
        "trt_profile_opt_shapes": most,
        "trt_profile_max_shapes": most,
    }
    if flag := FLAGS.get(precision):
        options[flag] = "True"
    if caches is not None:
        options |= {"trt_engine_cache_enable": "True", "trt_engine_cache_path": str(caches)}
    if timings is not None:
        timings.mkdir(parents=True, exist_ok=True)
        options |= {"trt_timing_cache_enable": "True", "trt_timing_cache_path": str(timings)}
    return TENSORRT, options
