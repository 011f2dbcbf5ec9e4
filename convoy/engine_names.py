"""Names of engine backends and of precisions, as in options and configuration keys.

The command line offers them without importing `models`.
"""

from __future__ import annotations

from typing import Literal, get_args

CpuBackendName = Literal["onnxruntime", "openvino"]
GpuBackendName = Literal["onnxruntime-cuda", "onnxruntime-tensorrt", "tensorrt"]
BackendName = Literal[CpuBackendName, GpuBackendName]
Precision = Literal["fp32", "fp16", "bf16", "int8"]

CPU_BACKENDS: tuple[CpuBackendName, ...] = get_args(CpuBackendName)
GPU_BACKENDS: tuple[GpuBackendName, ...] = get_args(GpuBackendName)
BACKENDS: tuple[BackendName, ...] = (*CPU_BACKENDS, *GPU_BACKENDS)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
