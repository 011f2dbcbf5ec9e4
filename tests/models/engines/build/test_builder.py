"""Building engines: quantization, accuracy check, storing, and refused inputs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convoy.engine_names import CPU_BACKENDS
from convoy.errors import ArtifactError, ConfigError
from models.artifact import BUNDLED, Artifact
from models.engines.backends.registry import find_backend, load_engine
from models.engines.build.builder import build_engine
from models.engines.store.store import Store
from models.engines.store.stored_engine import StoredEngine
from tests.artifacts import write_artifact
from tests.models.engines.orders import engine_spec, noisy_images, source

# The quantizer raises these warnings itself.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def run_stored(stored: StoredEngine, images: np.ndarray) -> np.ndarray:
    precision: Any = stored.precision
    return find_backend(stored.engine).load(stored.folder / "image.onnx", 1, precision).run(images)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_accurate_int8_is_stored_with_its_accuracy_check(artifact: Artifact, store: Store, backend: str) -> None:
    steps: list[str] = []
    wanted = engine_spec(artifact, "int8", backend, source())
    stored = build_engine(wanted, store, lambda step, done, total: steps.append(step))
    judgement = stored.manifest.judgement
    assert stored.status == "accepted"
    assert judgement["images"] == 2000
    assert 0 <= judgement["loss_bound"] <= judgement["budget"] == 0.005
    assert 0.95 < judgement["agreement"] <= 1
    assert 0 < judgement["logit_error"] < 0.2
    assert judgement["evidence"].startswith("made images")
    assert {"folding", "calibrating (minmax)", "running the reference", "compiling", "checking accuracy"} == set(steps)
    images, labels = noisy_images(50, seed=9)
    logits = run_stored(stored, images)
    assert not np.array_equal(logits, load_engine(artifact.image_model, 1).run(images))
    assert (logits.argmax(1) == labels).mean() > 0.9
    assert sorted(stored.manifest.files) == ["image.onnx", "tensor.onnx", "weights.bin"]
    assert build_engine(wanted, store, lambda *_: pytest.fail("it is stored already")) == stored


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_files_with_the_same_names_in_the_working_directory_are_not_touched(
    precision: Any, artifact: Artifact, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (elsewhere := tmp_path / "elsewhere").mkdir()
    theirs = dict.fromkeys(("weights.bin", "tensor.onnx", "int8.onnx", "int8.onnx.data", "whole.onnx"), b"theirs")
    for name, content in theirs.items():
        (elsewhere / name).write_bytes(content)
    monkeypatch.chdir(elsewhere)
    assert build_engine(engine_spec(artifact, precision, CPU_BACKENDS[0], source()), store).status == "accepted"
    assert {path.name: path.read_bytes() for path in elsewhere.iterdir()} == theirs


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_a_bad_calibration_is_refused_and_nothing_is_stored(artifact: Artifact, store: Store, backend: str) -> None:
    with pytest.raises(ArtifactError, match=r"refused, nothing was stored.*minmax: at 95 % it may lose.*--calibration"):
        build_engine(engine_spec(artifact, "int8", backend, source(black=True)), store)
    assert store.entries() == []
    assert [path.name for path in store.root.iterdir()] == [".locks"]


def test_an_engine_is_unproven_with_too_few_or_unlabelled_images(artifact: Artifact, store: Store) -> None:
    few = build_engine(engine_spec(artifact, eval_source=source(200)), store)
    assert (few.status, few.manifest.judgement["images"]) == ("unproven", 200)
    assert "too few" in few.manifest.judgement["reason"]
    unlabelled = build_engine(engine_spec(artifact, eval_source=source(labelled=False)), store)
    assert (unlabelled.status, unlabelled.manifest.judgement["loss_bound"]) == ("unproven", None)
    with pytest.raises(ArtifactError, match="agrees with the reference on"):
        build_engine(engine_spec(artifact, eval_source=source(200, black=True)), store)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_fp32_is_accepted_by_its_logits(artifact: Artifact, store: Store, backend: str) -> None:
    stored = build_engine(engine_spec(artifact, "fp32", backend), store)
    assert (stored.status, stored.manifest.recipe["calibration"]) == ("accepted", "")
    assert stored.manifest.judgement["logit_error"] <= 1e-3
    images, _ = noisy_images(20)
    np.testing.assert_allclose(run_stored(stored, images), load_engine(artifact.image_model, 1).run(images), atol=1e-5)


def test_16_bit_floats_are_checked_if_the_cpu_has_them(artifact: Artifact, store: Store) -> None:
    backend = find_backend("openvino")
    for precision in set(backend.precisions()) & {"fp16", "bf16"}:
        stored = build_engine(engine_spec(artifact, precision, "openvino", source()), store)
        assert (stored.status, stored.precision) == ("accepted", precision)
        assert build_engine(engine_spec(artifact, precision, "openvino"), store).status == "unproven"


def test_weights_in_a_separate_file_are_kept(store: Store) -> None:
    """Large networks have them; writing the graph twice must not lose them."""
    artifact = Artifact.load(BUNDLED / "resnet20-cifar10")
    stored = build_engine(engine_spec(artifact, "fp32", "openvino"), store)
    assert (stored.folder / "weights.bin").stat().st_size > 10**6
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    np.testing.assert_allclose(
        run_stored(stored, images), load_engine(artifact.image_model, 1).run(images), rtol=1e-2, atol=1e-2
    )


def test_a_precision_that_the_backend_does_not_run_is_refused(artifact: Artifact, store: Store) -> None:
    with pytest.raises(ConfigError, match="does not run bf16 on this machine, only fp32, int8"):
        build_engine(engine_spec(artifact, "bf16", "onnxruntime", source()), store)


def test_int8_needs_evaluation_data(artifact: Artifact, store: Store) -> None:
    with pytest.raises(ConfigError, match="--calibration"):
        build_engine(engine_spec(artifact), store)


def test_a_network_without_quantizable_layers_is_refused(store: Store, tmp_path: Path) -> None:
    pooling = Artifact.load(write_artifact(tmp_path / "pooling", "pooling"))
    with pytest.raises(ArtifactError, match="no layer of this network can be quantized"):
        build_engine(engine_spec(pooling, eval_source=source()), store)


@pytest.mark.parametrize("broken", ["cut short", "no graph", "without weights"])
def test_a_damaged_graph_is_refused_and_the_store_is_unchanged(store: Store, tmp_path: Path, broken: str) -> None:
    folder = tmp_path / "resnet20"
    shutil.copytree(BUNDLED / "resnet20-cifar10", folder)
    artifact = Artifact.load(folder)
    graph = artifact.tensor_model.read_bytes()
    if broken == "without weights":
        (folder / "weights.bin").unlink()
    else:
        artifact.tensor_model.write_bytes(graph[: len(graph) // 2] if broken == "cut short" else b"no graph")
    with pytest.raises(ArtifactError, match=r"tensor\.onnx cannot be read .*: import the model again"):
        build_engine(engine_spec(artifact, "fp32"), store)
    assert [path.name for path in store.root.iterdir()] == [".locks"]


def test_without_onnx_the_error_names_the_extra(
    artifact: Artifact, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.delitem(sys.modules, "models.engines.build.quantize", raising=False)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConfigError, match=r"needs onnx.*convoy-serve\[compile\]"):
        build_engine(engine_spec(artifact, "fp32"), store)
    assert store.entries() == []
