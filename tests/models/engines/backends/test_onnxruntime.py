"""ONNX Runtime on the CPU."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from convoy.errors import ArtifactError, EngineFailed
from models.engines.backends.registry import load_engine
from tests.artifacts import CLASSES, POISON, SIDE, quadrant_image, write_artifact


def batch(*bright: int) -> np.ndarray:
    return np.stack([quadrant_image(quadrant)[..., np.newaxis] for quadrant in bright])


def test_an_engine_has_its_graphs_specs_and_logits(tmp_path: Path) -> None:
    engine = load_engine(write_artifact(tmp_path / "a", "a") / "image.onnx", 1)
    assert (engine.input.name, engine.input.shape) == ("image", (-1, SIDE, SIDE, 1))
    assert engine.input.dtype == np.dtype(np.uint8)
    assert (engine.output.name, engine.output.shape) == ("logits", (-1, CLASSES))
    assert engine.run(batch(3, 0, 2)).argmax(1).tolist() == [3, 0, 2]


def test_threads_share_an_engine(tmp_path: Path) -> None:
    engine = load_engine(write_artifact(tmp_path / "a", "a") / "image.onnx", 1)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda number: int(engine.run(batch(number % 4)).argmax()), range(200)))
    assert answers == [number % 4 for number in range(200)]


def test_failures_raise_engine_failed(tmp_path: Path) -> None:
    engine = load_engine(write_artifact(tmp_path / "a", "a", faulty=True) / "image.onnx", 1)
    with pytest.raises(EngineFailed):
        engine.run(quadrant_image(0, POISON)[np.newaxis, ..., np.newaxis])
    with pytest.raises(EngineFailed):
        engine.run(np.zeros((1, 3, 3, 1), np.uint8))
    assert engine.run(batch(1)).argmax() == 1


def test_a_file_that_is_not_a_graph_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no graph")
    with pytest.raises(ArtifactError, match="cannot be loaded"):
        load_engine(path, 1)
    with pytest.raises(ArtifactError):
        load_engine(tmp_path / "absent.onnx", 1)
