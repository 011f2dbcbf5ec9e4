"""ONNX Runtime's CUDA execution provider. Needs the extra `gpu` and an NVIDIA GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime

from convoy.engine_names import Precision
from convoy.errors import ConfigError
from models.engines.backends.gpu import Gpu, find_gpu
from models.engines.backends.onnxruntime import OnnxRuntimeEngine, Provider

CUDA = "CUDAExecutionProvider"


class OnnxRuntimeCuda:
    """The backend. It has no int8 kernels; fp16 follows from the types in the graph."""

    name = "onnxruntime-cuda"
    platform = "onnxruntime_onnx"
    strongly_typed = True

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu

    @property
    def version(self) -> str:
        return str(onnxruntime.__version__)

    def hardware(self) -> dict[str, Any]:
        return self._gpu.hardware()

    def precisions(self) -> tuple[Precision, ...]:
        return ("fp32", "fp16")

    def prepare(self, graph: Path, precision: Precision, batches: tuple[int, ...], timings: Path) -> None:
        """Does nothing: graphs need no compilation."""

    def load(self, graph: Path, threads: int, precision: Precision, share: float = 1.0) -> OnnxRuntimeEngine:
        return OnnxRuntimeEngine(graph, threads, (cuda_provider(int(share * self._gpu.memory)),))


def backend() -> OnnxRuntimeCuda:
    """Raises ConfigError if the provider or the GPU is missing."""
    require_provider(CUDA)
    return OnnxRuntimeCuda(find_gpu())


def require_provider(name: str) -> None:
    """Raises ConfigError if the installed ONNX Runtime is the package for CPUs."""
    if name not in onnxruntime.get_available_providers():
        raise ConfigError(
            f"no GPU: the onnxruntime that is installed has no {name}; its packages for CPUs and GPUs overwrite each other: "
            "pip uninstall onnxruntime, then pip install 'convoy-serve[gpu]'"
        )
    onnxruntime.preload_dlls()  # of CUDA and cuDNN, from their Python packages


def cuda_provider(memory: int) -> Provider:
    """The provider on the first GPU that is visible to this process, within `memory` bytes."""
    return CUDA, {
        "device_id": "0",
        "gpu_mem_limit": str(memory),
        "arena_extend_strategy": "kSameAsRequested",  # not by powers of two: models may share the GPU
        "cudnn_conv_algo_search": "HEURISTIC",  # an exhaustive search would slow down the first run of every batch size
        "use_tf32": "0",  # TF32 has a mantissa of 10 bits; fp32 must agree with the reference
    }
