"""Importing ONNX files: equal answers, and the reasons for refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto

from convoy.errors import ArtifactError
from models.artifact import WEIGHTS, Preprocessing
from models.compile.description import Description
from models.engines.backends.registry import load_engine
from models.importing.from_onnx import import_onnx
from tests.models.onnx_nets import SIDE, write_net

FLOWERS = Description(("rose", "tulip", "lily", "aster"), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


@pytest.mark.parametrize("changes", [{}, {"softmax": True}, {"external": True}, {"shape": (1, 3, SIDE, SIDE)}])
def test_an_imported_network_gives_the_same_answers(tmp_path: Path, changes: dict[str, Any]) -> None:
    file = write_net(tmp_path / "net.onnx", **changes)
    artifact = import_onnx("flowers", file, FLOWERS, tmp_path / "out")
    manifest = artifact.manifest
    assert manifest.labels == FLOWERS.labels
    assert manifest.preprocessing == Preprocessing(3, SIDE, SIDE, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    assert (manifest.params, manifest.macs) == (8 * 48 + 32 * 4, 4 * 8 * 48 + 32 * 4)
    images = np.random.default_rng(2).integers(0, 256, (5, SIDE, SIDE, 3), np.uint8)
    rows = ((images / 255 - 0.5) / 0.25).astype(np.float32).transpose(0, 3, 1, 2).copy()
    original = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    expected = np.concatenate([original.run(None, {"image": row[np.newaxis]})[0] for row in rows])
    logits = load_engine(artifact.image_model, 1).run(images)
    if changes.get("softmax"):
        powers = np.exp(logits - logits.max(1, keepdims=True))
        logits = powers / powers.sum(1, keepdims=True)
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("external", [False, True])
def test_a_weights_file_in_the_working_directory_is_not_touched(
    external: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_net(tmp_path / "net.onnx", external=external)
    (elsewhere := tmp_path / "elsewhere").mkdir()
    (elsewhere / WEIGHTS).write_bytes(b"months of training")
    monkeypatch.chdir(elsewhere)
    for out in (Path("out"), tmp_path / "out"):
        artifact = import_onnx("flowers", file, FLOWERS, out)
        assert (artifact.folder / WEIGHTS).stat().st_size >= 8 * 48 * 4
    assert (elsewhere / WEIGHTS).read_bytes() == b"months of training"
    assert sorted(path.name for path in elsewhere.iterdir()) == ["out", WEIGHTS]


def test_the_description_sets_an_image_side_that_the_file_leaves_open(tmp_path: Path) -> None:
    file = write_net(tmp_path / "net.onnx", shape=("n", 3, "h", "w"))
    description = Description(FLOWERS.labels, resize=12, size=SIDE)
    assert import_onnx("flowers", file, description, tmp_path / "out").manifest.preprocessing.resize == 12


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shape": ("n", 3, SIDE)}, "rank 3"),
        ({"shape": ("n", 3, "h", "w")}, "--size"),
        ({"shape": ("n", 3, 8, 16)}, "not square"),
        ({"shape": ("n", SIDE, SIDE, 3)}, "transpose"),
        ({"shape": ("n", "c", SIDE, SIDE)}, "channels"),
        ({"shape": (16, 3, SIDE, SIDE)}, "batch fixed at 16"),
        ({"kind": TensorProto.FLOAT16}, "FLOAT16"),
        ({"opset": 6}, "opset 6"),
        ({"opset": 999}, "opset 999"),
        ({"domain": "my.own"}, "operators of my.own"),
        ({"operator": "Convolve"}, "uses Convolve, which ONNX does not have"),
        ({"second": True}, "2 inputs"),
        ({"flatten": False}, "one image"),
        ({"fixed": True}, "dynamic batch"),
        ({"weight": np.nan}, "dense holds NaN or infinity"),
        ({"weight": np.inf}, "dense holds NaN or infinity"),
        ({"weight": np.nan, "external": True}, "dense holds NaN or infinity"),
        ({"hidden": np.nan}, "a constant holds NaN"),
        ({"weight": 3e38}, "answers random images with NaN or infinity"),
        ({"mask": np.inf}, "zeros with NaN or infinity"),
        ({"root": True}, "answers random images with NaN or infinity"),
        ({"pixels": "spread"}, "zeros with NaN or infinity"),
        ({"pixels": "glare"}, "answers a black and a white image with NaN or infinity"),
    ],
)
def test_a_network_that_cannot_be_served_is_refused_with_the_reason(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    file = write_net(tmp_path / "net.onnx", **changes)
    with pytest.raises(ArtifactError, match=words):
        import_onnx("flowers", file, FLOWERS, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_network_with_a_masked_class_is_imported(tmp_path: Path) -> None:
    """Minus infinity is the logit of an excluded class, whose probability is 0."""
    artifact = import_onnx("flowers", write_net(tmp_path / "net.onnx", mask=-np.inf), FLOWERS, tmp_path / "out")
    assert artifact.manifest.parity["largest_relative_difference"] <= 1e-4
    logits = load_engine(artifact.image_model, 1).run(np.full((1, SIDE, SIDE, 3), 7, np.uint8))
    assert np.isneginf(logits).tolist() == [[False, True, False, False]]


def test_missing_external_weights_are_refused(tmp_path: Path) -> None:
    file = write_net(tmp_path / "net.onnx", external=True)
    (tmp_path / "net.data").unlink()
    with pytest.raises(ArtifactError, match=r"net\.data, which is not in"):
        import_onnx("flowers", file, FLOWERS, tmp_path / "out")


def test_truncated_external_weights_are_refused(tmp_path: Path) -> None:
    file = write_net(tmp_path / "net.onnx", external=True)
    data = tmp_path / "net.data"
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(ArtifactError, match=r"weights of .*net\.onnx cannot be read, export or copy them again"):
        import_onnx("flowers", file, FLOWERS, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, share: float) -> None:
    file = write_net(tmp_path / "net.onnx")
    graph = file.read_bytes()
    file.write_bytes(graph[: int(len(graph) * share)])
    with pytest.raises(ArtifactError, match="is truncated"):
        import_onnx("flowers", file, FLOWERS, tmp_path / "out")


@pytest.mark.parametrize("content", [b"", b"no graph at all", b"\x08\x08"])
def test_a_file_that_is_not_onnx_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "net.onnx").write_bytes(content)
    with pytest.raises(ArtifactError, match="is not an ONNX file"):
        import_onnx("flowers", tmp_path / "net.onnx", FLOWERS, tmp_path / "out")


@pytest.mark.parametrize(
    ("description", "words"),
    [
        (Description(), "has 4 classes without names"),
        (Description(("a", "b")), "2 labels, but the network has 4"),
        (Description(FLOWERS.labels, size=9), "8 pixels wide"),
        (Description(FLOWERS.labels, resize=4), "larger resize"),
        (Description(FLOWERS.labels, mean=(0.5,)), "3 channels"),
        (Description(FLOWERS.labels, std=(0.5, 0.0, 0.5)), "positive"),
        (Description(FLOWERS.labels, std=(0.5, np.nan, 0.5)), "positive"),
        (Description(FLOWERS.labels, mean=(0.5, np.nan, 0.5)), "finite"),
    ],
)
def test_a_description_must_fit_the_network(tmp_path: Path, description: Description, words: str) -> None:
    with pytest.raises(ArtifactError, match=words):
        import_onnx("flowers", write_net(tmp_path / "net.onnx"), description, tmp_path / "out")
