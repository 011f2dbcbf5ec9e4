"""int8 engines of bundled models, calibrated and checked on real validation images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from convoy.engine_names import CPU_BACKENDS
from convoy.errors import ArtifactError
from models.artifact import BUNDLED, MANIFEST, Artifact
from models.datasets import load_data
from models.engines.backends.registry import find_backend
from models.engines.build.builder import build_engine
from models.engines.build.eval_data import find_eval_source
from models.engines.spec import EngineSpec, EvalData, EvalSource
from models.engines.store.store import Store

# The quantizer raises these warnings itself.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def cifar_nets() -> list[str]:
    """resnet20 and the two other models with the fewest operations."""
    found = [Artifact.load(file.parent).manifest for file in sorted(BUNDLED.glob(f"*/{MANIFEST}"))]
    others = [net for net in found if net.dataset == "cifar10" and net.name != "resnet20-cifar10"]
    return ["resnet20-cifar10", *(net.name for net in sorted(others, key=lambda net: net.macs)[:2])]


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("name", cifar_nets())
def test_int8_passes_the_accuracy_check_and_is_as_accurate_on_test_images(
    name: str, backend: str, tmp_path: Path
) -> None:
    artifact = Artifact.load(BUNDLED / name)
    stored = build_engine(
        EngineSpec(artifact, find_backend(backend), "int8", find_eval_source(artifact)), Store(tmp_path)
    )
    judgement = stored.manifest.judgement
    assert (stored.status, judgement["images"]) == ("accepted", 4500)
    assert judgement["loss_bound"] <= 0.005
    test = load_data("cifar10").test
    engine = find_backend(backend).load(stored.folder / "image.onnx", 2, "int8")
    correct = sum(
        int((engine.run(test.images[start : start + 100]).argmax(1) == test.labels[start : start + 100]).sum())
        for start in range(0, 2000, 100)
    )
    own = artifact.manifest.accuracy["top1"]
    assert correct / 2000 > own - 0.03  # the allowed loss, and about two standard errors of 2 000 images


def test_an_engine_calibrated_on_black_images_is_refused(tmp_path: Path) -> None:
    artifact = Artifact.load(BUNDLED / "resnet20-cifar10")
    source = find_eval_source(artifact)
    assert source is not None
    real = source.read()
    black = EvalData(np.zeros_like(real.calibrate[:50]), real.judge, real.labels)
    spec = EngineSpec(artifact, find_backend("onnxruntime"), "int8", EvalSource("black images", "0", lambda: black))
    with pytest.raises(ArtifactError, match="refused, nothing was stored"):
        build_engine(spec, Store(tmp_path))
    assert Store(tmp_path).entries() == []


def test_an_engine_checked_on_few_images_is_unproven(shared: Path, tmp_path: Path) -> None:
    artifact = Artifact.load(BUNDLED / "squeezenet1_1-imagenet")
    source = find_eval_source(artifact, shared / "images" / "imagenet_200")
    stored = build_engine(EngineSpec(artifact, find_backend("openvino"), "int8", source), Store(tmp_path))
    assert stored.status == "unproven"
    assert stored.manifest.judgement["agreement"] > 0.9
