"""Artifacts and manifests: the bundled ones, and damaged ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from convoy.errors import ArtifactError
from models.artifact import BUNDLED, MANIFEST, Artifact, Manifest
from tests.artifacts import write_artifact

BUNDLES = sorted(path.parent.name for path in BUNDLED.glob(f"*/{MANIFEST}"))


@pytest.mark.parametrize("name", BUNDLES)
def test_bundled_artifacts_are_complete(name: str) -> None:
    manifest = Artifact.load(BUNDLED / name).manifest
    assert manifest.name == name
    assert manifest.parity["largest_relative_difference"] <= manifest.parity["tolerance"]
    assert 0 < manifest.accuracy["top1"] <= 1


def test_the_models_of_the_default_catalog_are_bundled() -> None:
    assert {"lenet5-mnist", "resnet20-cifar10", "squeezenet1_1-imagenet"} <= set(BUNDLES)


def test_bundles_take_at_most_25_mebibytes() -> None:
    assert sum(path.stat().st_size for path in BUNDLED.rglob("*") if path.is_file()) <= 25 * 2**20


def test_bundles_hold_no_paths_of_the_build_machine() -> None:
    for path in BUNDLED.rglob("*.onnx"):
        content = path.read_bytes()
        assert b"/work/" not in content
        assert b"site-packages" not in content


def test_a_manifest_survives_a_round_trip() -> None:
    manifest = Artifact.load(BUNDLED / "lenet5-mnist").manifest
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert replace(manifest, name="x") != manifest


def test_a_missing_folder_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"models\.compile"):
        Artifact.load(tmp_path / "nowhere")


@pytest.mark.parametrize("damage", ["missing", "changed", "unknown key", "missing key", "not JSON", "wrong type"])
def test_a_damaged_artifact_is_refused(tmp_path: Path, damage: str) -> None:
    folder = write_artifact(tmp_path / "a", "a")
    manifest = json.loads((folder / MANIFEST).read_text())
    if damage == "missing":
        (folder / "image.onnx").unlink()
    elif damage == "changed":
        (folder / "image.onnx").write_bytes(b"other")
    else:
        if damage == "unknown key":
            manifest["zzz"] = 1
        elif damage == "missing key":
            del manifest["labels"]
        elif damage == "wrong type":
            manifest["preprocessing"] = [1]
        (folder / MANIFEST).write_text("{" if damage == "not JSON" else json.dumps(manifest))
    with pytest.raises(ArtifactError, match="compile the artifact again"):
        Artifact.load(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"zzz": 1}, "unknown key 'zzz'"),
        ({"lables": []}, "did you mean 'labels'"),
        ({"params": "12"}, "params: input should be a valid integer, not '12'"),
        ({"params": True}, "params: input should be a valid integer, not True"),
        ({"labels": [1]}, r"labels\.0: input should be a valid string, not 1"),
        ({"files": {"weights.bin": 1}}, r"files\.weights\.bin: input should be a valid string"),
        ({"preprocessing": {"channels": 1}}, r"preprocessing\.resize is missing"),
    ],
)
def test_an_invalid_key_of_a_manifest_is_named(change: dict[str, object], words: str) -> None:
    document = json.loads((BUNDLED / "lenet5-mnist" / MANIFEST).read_text())
    with pytest.raises(ArtifactError, match=words):
        Manifest.from_json(json.dumps(document | change))


def test_a_deep_or_long_manifest_is_refused_quickly() -> None:
    for text in ("[" * 1_000_000, '{"params": ' + "9" * 1_000_000 + "}", "[" + "0," * 1_000_000 + "0]"):
        with pytest.raises(ArtifactError, match="cannot be read"):
            Manifest.from_json(text)


@pytest.mark.parametrize("content", [b"\xff", b""])
def test_a_manifest_that_is_not_text_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MANIFEST).write_bytes(content)
    with pytest.raises(ArtifactError, match="compile the artifact again"):
        Artifact.load(tmp_path)


def test_an_invalid_file_name_is_refused(tmp_path: Path) -> None:
    manifest = Artifact.load(BUNDLED / "lenet5-mnist").manifest
    (tmp_path / MANIFEST).write_text(replace(manifest, files={"a\0b": "0"}).to_json())
    with pytest.raises(ArtifactError, match="is missing or is not the file of its manifest"):
        Artifact.load(tmp_path)
