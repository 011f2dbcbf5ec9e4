from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convoy.errors import ArtifactError, ConfigError
from models.artifact import BUNDLED, Artifact
from models.engines.backends.registry import CPU_BACKENDS, find_backend, load_engine
from models.engines.build.builder import build_engine
from models.engines.store.store import Store
from models.engines.store.stored_engine import StoredEngine
from tests.artifacts import write_artifact
from tests.models.engines.orders import noisy_images, order, source

# The quantizer warns of itself.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def answers(entry: StoredEngine, images: np.ndarray) -> np.ndarray:
    precision: Any = entry.precision
    return find_backend(entry.engine).load(entry.folder / "image.onnx", 1, precision).run(images)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_int8_that_is_right_is_kept_with_its_evidence(artifact: Artifact, store: Store, backend: str) -> None:
    steps: list[str] = []
    wanted = order(artifact, "int8", backend, source())
    entry = build_engine(wanted, store, lambda step, done, total: steps.append(step))
    judgement = entry.manifest.judgement
    assert entry.status == "accepted"
    assert judgement["images"] == 2000
    assert 0 <= judgement["loss_bound"] <= judgement["budget"] == 0.005
    assert 0.95 < judgement["agreement"] <= 1
    assert 0 < judgement["logit_error"] < 0.2
    assert judgement["evidence"].startswith("made images")
    assert {"folding", "calibrating (minmax)", "running the reference", "compiling", "checking accuracy"} == set(steps)
    images, labels = noisy_images(50, seed=9)
    logits = answers(entry, images)
    assert not np.array_equal(logits, load_engine(artifact.image_model, 1).run(images))
    assert (logits.argmax(1) == labels).mean() > 0.9
    assert sorted(entry.manifest.files) == ["image.onnx", "tensor.onnx", "weights.bin"]
    assert build_engine(wanted, store, lambda *_: pytest.fail("it is there already")) == entry


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_working_folder_may_hold_files_of_the_same_names(
    precision: Any, artifact: Artifact, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (elsewhere := tmp_path / "elsewhere").mkdir()
    theirs = dict.fromkeys(("weights.bin", "tensor.onnx", "int8.onnx", "int8.onnx.data", "whole.onnx"), b"theirs")
    for name, content in theirs.items():
        (elsewhere / name).write_bytes(content)
    monkeypatch.chdir(elsewhere)
    assert build_engine(order(artifact, precision, CPU_BACKENDS[0], source()), store).status == "accepted"
    assert {one.name: one.read_bytes() for one in elsewhere.iterdir()} == theirs


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_a_bad_calibration_is_refused_and_nothing_is_kept(artifact: Artifact, store: Store, backend: str) -> None:
    with pytest.raises(ArtifactError, match=r"refused, nothing was stored.*minmax: at 95 % it may lose.*--calibration"):
        build_engine(order(artifact, "int8", backend, source(black=True)), store)
    assert store.entries() == []
    assert [one.name for one in store.root.iterdir()] == [".locks"]


def test_too_few_images_prove_nothing(artifact: Artifact, store: Store) -> None:
    few = build_engine(order(artifact, evidence=source(200)), store)
    assert (few.status, few.manifest.judgement["images"]) == ("unproven", 200)
    assert "too few" in few.manifest.judgement["reason"]
    unlabelled = build_engine(order(artifact, evidence=source(labelled=False)), store)
    assert (unlabelled.status, unlabelled.manifest.judgement["loss_bound"]) == ("unproven", None)
    with pytest.raises(ArtifactError, match="agrees with the reference on"):
        build_engine(order(artifact, evidence=source(200, black=True)), store)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_fp32_is_accepted_by_its_logits(artifact: Artifact, store: Store, backend: str) -> None:
    entry = build_engine(order(artifact, "fp32", backend), store)
    assert (entry.status, entry.manifest.recipe["calibration"]) == ("accepted", "")
    assert entry.manifest.judgement["logit_error"] <= 1e-3
    images, _ = noisy_images(20)
    np.testing.assert_allclose(answers(entry, images), load_engine(artifact.image_model, 1).run(images), atol=1e-5)


def test_half_floats_are_judged_where_the_cpu_has_them(artifact: Artifact, store: Store) -> None:
    backend = find_backend("openvino")
    for precision in set(backend.precisions()) & {"fp16", "bf16"}:
        entry = build_engine(order(artifact, precision, "openvino", source()), store)
        assert (entry.status, entry.precision) == ("accepted", precision)
        assert build_engine(order(artifact, precision, "openvino"), store).status == "unproven"


def test_networks_whose_weights_lie_beside_the_graph(store: Store) -> None:
    """Large ones do, and what is written twice must not lose them."""
    artifact = Artifact.load(BUNDLED / "resnet20-cifar10")
    entry = build_engine(order(artifact, "fp32", "openvino"), store)
    assert (entry.folder / "weights.bin").stat().st_size > 10**6
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    np.testing.assert_allclose(
        answers(entry, images), load_engine(artifact.image_model, 1).run(images), rtol=1e-2, atol=1e-2
    )


def test_what_a_backend_does_not_run_is_not_offered(artifact: Artifact, store: Store) -> None:
    with pytest.raises(ConfigError, match="does not run bf16 on this machine, only fp32, int8"):
        build_engine(order(artifact, "bf16", "onnxruntime", source()), store)


def test_int8_needs_images(artifact: Artifact, store: Store) -> None:
    with pytest.raises(ConfigError, match="--calibration"):
        build_engine(order(artifact), store)


def test_a_network_without_layers_is_not_called_int8(store: Store, tmp_path: Path) -> None:
    pooling = Artifact.load(write_artifact(tmp_path / "pooling", "pooling"))
    with pytest.raises(ArtifactError, match="no layer of this network can be quantized"):
        build_engine(order(pooling, evidence=source()), store)


@pytest.mark.parametrize("broken", ["cut short", "no graph", "without weights"])
def test_a_graph_that_was_damaged_meanwhile_is_refused_and_the_store_stays_as_it_was(
    store: Store, tmp_path: Path, broken: str
) -> None:
    folder = tmp_path / "resnet20"
    shutil.copytree(BUNDLED / "resnet20-cifar10", folder)
    artifact = Artifact.load(folder)
    whole = artifact.tensor_model.read_bytes()
    if broken == "without weights":
        (folder / "weights.bin").unlink()
    else:
        artifact.tensor_model.write_bytes(whole[: len(whole) // 2] if broken == "cut short" else b"no graph")
    with pytest.raises(ArtifactError, match=r"tensor\.onnx cannot be read .*: import the model again"):
        build_engine(order(artifact, "fp32"), store)
    assert [one.name for one in store.root.iterdir()] == [".locks"]


def test_without_onnx_the_remedy_is_told(artifact: Artifact, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.delitem(sys.modules, "models.engines.build.quantize", raising=False)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConfigError, match=r"needs onnx.*convoy-serve\[compile\]"):
        build_engine(order(artifact, "fp32"), store)
    assert store.entries() == []
