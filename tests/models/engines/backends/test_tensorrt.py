"""TensorRT engines with a double of TensorRT; `tests/gpu` uses the real one."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convoy.engine_names import Precision
from convoy.errors import ArtifactError, ConfigError
from models.artifact import Artifact
from models.engines.backends.gpu import Gpu, find_gpu
from models.engines.backends.registry import find_backend, load_engine
from models.engines.backends.tensorrt_plan import buckets, build_plan
from models.engines.build.builder import build_engine
from models.engines.store.store import Store
from tests.models.engines.backends import tensorrt_double as double
from tests.models.engines.orders import engine_spec, noisy_images, source

# The quantizer raises these warnings itself.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> Iterator[double.State]:
    with double.installed(monkeypatch) as found:
        yield found


def planes(count: int) -> np.ndarray:
    """Rows [n, 1, 8, 8] for the float form."""
    images, _ = noisy_images(count)
    return images.transpose(0, 3, 1, 2).astype(np.float32)


def test_buckets_are_contiguous() -> None:
    assert buckets((32, 1, 8, 8)) == [(1, 1), (2, 8), (9, 32)]
    assert buckets((4,)) == [(1, 4)]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_an_engine_is_built_checked_and_run_from_its_plan(
    state: double.State, artifact: Artifact, store: Store, precision: Precision
) -> None:
    stored = build_engine(engine_spec(artifact, precision, "tensorrt", source()), store)
    assert (stored.status, sorted(stored.manifest.files)) == (
        "accepted",
        ["image.onnx", "image.plan", "tensor.onnx", "tensor.plan", "weights.bin"],
    )
    built = state.builds
    images, labels = noisy_images(70, seed=3)
    logits = find_backend("tensorrt").load(stored.folder / "image.onnx", 1, precision).run(images)
    assert state.builds == built
    assert (logits.argmax(1) == labels).mean() > 0.9
    reference = load_engine(artifact.image_model, 1).run(images)
    np.testing.assert_allclose(logits, reference, atol={"fp32": 1e-5, "fp16": 1e-3, "int8": 0.05}[precision])


def test_each_batch_runs_in_the_profile_of_its_bucket(state: double.State, artifact: Artifact, tmp_path: Path) -> None:
    backend: Any = find_backend("tensorrt")
    backend.prepare(artifact.tensor_model, "fp32", (1, 8, 32), tmp_path / "timings")
    engine = backend.load(artifact.tensor_model, 1, "fp32")
    rows = planes(70)
    for count in (1, 2, 8, 9, 32):
        engine.run(rows[:count])
    assert state.profiles_run == [0, 1, 1, 2, 2]
    state.profiles_run.clear()
    assert engine.run(rows).shape == (70, 4)
    assert state.profiles_run == [2, 2, 1]


def test_a_build_reuses_the_timing_cache(state: double.State, artifact: Artifact, tmp_path: Path) -> None:
    gpu = find_gpu()
    build_plan(artifact.tensor_model, (1,), gpu, tmp_path)
    build_plan(artifact.tensor_model, (1,), gpu, tmp_path)
    assert state.timings_given == [b"", b"known"]
    (file,) = tmp_path.glob("*.cache")
    assert file.name == "11.4.1-sm9.0.cache"
    file.write_bytes(b"of another version")
    build_plan(artifact.tensor_model, (1,), gpu, tmp_path)
    assert (state.timings_given[-1], file.read_bytes()) == (b"", b"known")


@pytest.mark.parametrize("kept", ["another GPU", "damaged", "nothing"])
def test_a_plan_that_does_not_fit_is_built_again(
    state: double.State, artifact: Artifact, tmp_path: Path, kept: str, caplog: pytest.LogCaptureFixture
) -> None:
    backend = find_backend("tensorrt")
    graph = artifact.tensor_model
    backend.prepare(graph, "fp32", (1, 8), tmp_path)
    plan = graph.with_suffix(".plan")
    if kept == "another GPU":
        state.capability = (8, 6)
    else:
        plan.write_bytes(b"" if kept == "nothing" else plan.read_bytes()[7:])
    with caplog.at_level(logging.WARNING):
        engine = backend.load(graph, 1, "fp32")
    np.testing.assert_allclose(engine.run(planes(5)), load_engine(graph, 1).run(planes(5)), atol=1e-5)
    assert state.builds == 2
    assert "built again" in caplog.text


def test_another_gpu_makes_another_build_spec(state: double.State, artifact: Artifact, store: Store) -> None:
    stored = build_engine(engine_spec(artifact, "fp32", "tensorrt"), store)
    assert stored.manifest.recipe["hardware"]["card"] == double.GPU_NAME
    assert stored.manifest.recipe["versions"]["tensorrt"] == double.VERSION
    state.capability = (8, 9)
    moved = engine_spec(artifact, "fp32", "tensorrt")
    assert moved.differences(stored.manifest.recipe) == ["hardware"]
    assert store.find(moved) is None


def test_gpu_memory_is_counted_and_freed(state: double.State, artifact: Artifact) -> None:
    backend = find_backend("tensorrt")
    engine: Any = backend.load(artifact.tensor_model, 1, "fp32")
    buffers = 32 * 4 * (8 * 8 + 4)
    assert engine.device_memory > buffers + 4096
    assert sum(len(buffer) for buffer in state.allocated.values()) == buffers
    del engine
    assert not state.allocated
    with pytest.raises(ArtifactError, match=r"may take 0 MB: give the model a larger share \(`gpus`\)"):
        backend.load(artifact.tensor_model, 1, "fp32", share=1e-6)


def test_without_a_gpu_the_error_names_the_remedy(state: double.State, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_gpu() == Gpu(double.GPU_NAME, "9.0", "600.1", double.MEMORY)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-5")
    assert find_gpu().name == double.GPU_NAME
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ConfigError, match=r"no GPU: CUDA_VISIBLE_DEVICES hides them all.*gpus"):
        find_backend("tensorrt")


def test_a_missing_driver_is_reported(state: double.State, monkeypatch: pytest.MonkeyPatch) -> None:
    import pynvml

    def fail() -> None:
        raise pynvml.NVMLError("NVML Shared Library Not Found")

    monkeypatch.setattr(pynvml, "nvmlInit", fail)
    with pytest.raises(ConfigError, match="no GPU: NVML Shared Library Not Found: install NVIDIA's driver"):
        find_backend("tensorrt")


def test_an_old_tensorrt_is_refused(state: double.State, monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorrt

    monkeypatch.setattr(tensorrt, "__version__", "10.13.0.35")
    with pytest.raises(ConfigError, match=r"TensorRT 10\.13\.0\.35 is too old, 11 is needed.*convoy-serve\[tensorrt\]"):
        find_backend("tensorrt")
