"""Engines on a GPU: built, checked for accuracy, stored, loaded, limited in memory, and served."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest

from convoy.engine_names import GPU_BACKENDS, Precision
from convoy.errors import ArtifactError
from models.artifact import BUNDLED, Artifact
from models.engines.backends.registry import Backend, load_engine
from models.engines.build.builder import build_engine
from models.engines.build.eval_data import find_eval_source
from models.engines.spec import EngineSpec
from models.engines.store.store import Store
from serve.config.loading import parse_settings
from serve.deployments import local

# The quantizer raises these warnings itself.
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
NAME = "resnet20-cifar10"
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
VARIANTS = [
    (name, precision)
    for name in GPU_BACKENDS
    for precision in PRECISIONS
    if (name, precision) != ("onnxruntime-cuda", "int8")
]


@pytest.fixture
def artifact() -> Artifact:
    return Artifact.load(BUNDLED / NAME)


@pytest.fixture
def graph(backend: Backend, artifact: Artifact, tmp_path: Path) -> Path:
    """The image graph that is built for the backend."""
    engine = build_engine(EngineSpec(artifact, backend, "fp32", find_eval_source(artifact)), Store(tmp_path))
    return engine.folder / "image.onnx"


@pytest.mark.parametrize(("backend", "precision"), VARIANTS, indirect=["backend"])
def test_an_engine_passes_the_accuracy_check_and_is_loaded_from_the_store(
    backend: Backend, precision: Precision, artifact: Artifact, tmp_path: Path
) -> None:
    engine = build_engine(EngineSpec(artifact, backend, precision, find_eval_source(artifact)), Store(tmp_path))
    assert (engine.status, engine.damage()) == ("accepted", "")
    images = np.random.default_rng(0).integers(0, 256, (70, 32, 32, 3), np.uint8)
    logits = backend.load(engine.folder / "image.onnx", 1, precision).run(images)
    reference = load_engine(artifact.image_model, 2).run(images)
    assert (logits.argmax(1) == reference.argmax(1)).mean() > 0.9
    assert engine.damage() == ""  # loading writes nothing into the store


def test_every_batch_size_gives_the_same_answers(backend: Backend, graph: Path) -> None:
    engine = backend.load(graph, 1, "fp32")
    images = np.random.default_rng(1).integers(0, 256, (70, 32, 32, 3), np.uint8)
    expected = engine.run(images)
    for count in (1, 2, 8, 9, 32, 33):
        np.testing.assert_allclose(engine.run(images[:count]), expected[:count], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("backend", ["tensorrt"], indirect=True)  # ONNX Runtime notices only when it runs
def test_a_share_of_the_gpu_that_is_too_small_is_refused(backend: Backend, graph: Path) -> None:
    with pytest.raises(ArtifactError, match="give the model more of it"):
        backend.load(graph, 1, "fp32", share=1e-6)


@pytest.mark.parametrize("placement", ["local", "dedicated"])
def test_a_server_answers_with_a_gpu_engine(
    backend: Backend, placement: str, artifact: Artifact, tmp_path: Path, free_ports: Callable[[int], list[int]]
) -> None:
    build_engine(EngineSpec(artifact, backend, "fp32", find_eval_source(artifact)), Store(tmp_path / "store"))
    ports = dict(zip(("http_port", "grpc_port", "metrics_port"), free_ports(3), strict=True))
    model = {"name": NAME, "engine": backend.name, "placement": placement, "gpus": 0.5}
    where = {"runtime_dir": str(tmp_path / "node"), "engines": str(tmp_path / "store"), "listen": ports}
    local.start(parse_settings({**where, "models": [model]}))
    try:
        url = f"http://127.0.0.1:{ports['http_port']}/v1/models"
        body = (BUNDLED / "samples" / "cifar10-12-dog.png").read_bytes()
        answer = httpx.post(f"{url}/{NAME}/classify", content=body, timeout=60).raise_for_status().json()
        assert answer["predictions"][0]["classes"][0]["label"] == "dog"
        assert httpx.get(url).json()["models"][0]["engine"].split()[0] == backend.name
    finally:
        local.stop()
