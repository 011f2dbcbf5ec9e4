"""Options of ONNX Runtime's GPU providers; `tests/gpu` runs them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from convoy.engine_names import GPU_BACKENDS
from convoy.errors import ArtifactError, ConfigError
from models.engines.backends.gpu import Gpu
from models.engines.backends.onnxruntime import OnnxRuntimeEngine
from models.engines.backends.onnxruntime_cuda import OnnxRuntimeCuda, cuda_provider
from models.engines.backends.onnxruntime_tensorrt import OnnxRuntimeTensorRt, tensorrt_provider
from models.engines.backends.registry import find_backend
from models.engines.engine import TensorSpec
from tests.artifacts import write_artifact

GPU = Gpu("Test Card", "9.0", "600.1", 8 << 30)
SPEC = TensorSpec("image", np.dtype(np.uint8), (-1, 224, 200, 3))


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this is a GPU machine")
@pytest.mark.parametrize("name", GPU_BACKENDS)
def test_without_a_gpu_the_error_names_the_extra(name: str) -> None:
    with pytest.raises(ConfigError, match=r"pip install 'convoy-serve\[(gpu|tensorrt)\]'"):
        find_backend(name)


def test_cuda_is_limited_to_its_share_of_the_gpu() -> None:
    name, options = cuda_provider(1 << 30)
    assert name == "CUDAExecutionProvider"
    assert options["gpu_mem_limit"] == "1073741824"
    assert (options["use_tf32"], options["device_id"]) == ("0", "0")


def test_the_profile_covers_one_row_to_the_largest_batch(tmp_path: Path) -> None:
    name, options = tensorrt_provider("int8", 5, SPEC, (1, 8, 64), tmp_path / "caches", tmp_path / "timings")
    assert name == "TensorrtExecutionProvider"
    assert options["trt_profile_min_shapes"] == "image:1x224x200x3"
    assert options["trt_profile_max_shapes"] == options["trt_profile_opt_shapes"] == "image:64x224x200x3"
    assert options["trt_engine_cache_path"] == str(tmp_path / "caches")
    assert options["trt_timing_cache_path"] == str(tmp_path / "timings")
    assert (options["trt_max_workspace_size"], options["trt_int8_enable"]) == ("5", "True")
    plain = tensorrt_provider("fp32", 5, SPEC, (1,), None, None)[1]
    assert not any("enable" in option for option in plain)


def test_precisions_and_hardware_are_those_of_the_provider() -> None:
    cuda, tensorrt = OnnxRuntimeCuda(GPU), OnnxRuntimeTensorRt(GPU, "11.4.1")
    assert cuda.precisions() == ("fp32", "fp16")
    assert tensorrt.precisions() == ("fp32", "fp16", "int8")
    assert tensorrt.version == f"{onnxruntime.__version__}+tensorrt11.4.1"
    hardware = cuda.hardware()
    assert (hardware["card"], hardware["capability"], hardware["driver"]) == ("Test Card", "9.0", "600.1")


@pytest.mark.filterwarnings("ignore:Specified provider:UserWarning")
def test_a_provider_that_cannot_run_the_graph_is_refused(tmp_path: Path) -> None:
    graph = write_artifact(tmp_path / "a", "a") / "image.onnx"
    with pytest.raises(ArtifactError, match=r"image\.onnx cannot be loaded by CUDAExecutionProvider, only by CPU"):
        OnnxRuntimeEngine(graph, 1, (cuda_provider(1 << 30),))
