"""Engines kept by the hash of what they were made of: built once, whole or not there, verified before they are loaded."""

from __future__ import annotations

import dataclasses
import errno
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from convoy.errors import ArtifactError
from models.artifact import MANIFEST, file_hash
from models.data import cache_folder
from models.engines.order import Order, key_of

NEW, LOCKS = ".new-", ".locks"
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

log = logging.getLogger("convoy.engines")


@dataclass(frozen=True)
class EngineManifest:
    """How an engine was made and what was found of it. `recipe` is what its key is the hash of; `seconds` it took to build."""

    key: str
    model: str
    recipe: Mapping[str, Any]
    judgement: Mapping[str, Any]
    made: Mapping[str, Any]
    files: Mapping[str, str]
    size: int

    @classmethod
    def from_json(cls, text: bytes) -> EngineManifest:
        """Raises ArtifactError."""
        try:
            manifest = cls(**json.loads(text))
            if manifest.key != key_of(manifest.recipe):
                raise ArtifactError("its key is not that of its recipe")
            return manifest
        except (ValueError, TypeError) as error:
            raise ArtifactError(f"its manifest cannot be read: {error}") from error

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"


@dataclass(frozen=True)
class Entry:
    """A built engine in its folder."""

    folder: Path
    manifest: EngineManifest

    @classmethod
    def read(cls, folder: Path) -> Entry:
        """Reads the manifest alone. Raises ArtifactError."""
        try:
            manifest = EngineManifest.from_json((folder / MANIFEST).read_bytes())
        except OSError as error:
            raise ArtifactError(f"its manifest cannot be read: {error.strerror}") from error
        if manifest.key != folder.name:
            raise ArtifactError("its folder is not named by its key")
        return cls(folder, manifest)

    @property
    def status(self) -> str:
        return str(self.manifest.judgement["status"])

    @property
    def engine(self) -> str:
        return str(self.manifest.recipe["engine"])

    @property
    def precision(self) -> str:
        return str(self.manifest.recipe["precision"])

    def damage(self) -> str:
        """Which of its files is not what the manifest says; empty when all are."""
        return next((name for name, known in self.manifest.files.items() if file_hash(self.folder / name) != known), "")


class Store:
    """A folder of engines, which processes, and nodes through a shared volume, may use at the same time."""

    def __init__(self, root: Path | None = None) -> None:
        """Without `root`: `engines` in the user's cache."""
        self.root = root or cache_folder() / "engines"

    def find(self, order: Order) -> Entry | None:
        """A whole engine that serves the order, be it calibrated on other images: an accepted one first, then the newest."""
        fitting = [one for one in self.entries() if not order.differences(one.manifest.recipe)]
        fitting.sort(key=lambda one: (one.status == "accepted", str(one.manifest.made["date"])), reverse=True)
        return next((one for one in fitting if not one.damage()), None)

    def get(self, key: str) -> Entry | None:
        """The whole engine of a key. What is damaged is not there."""
        try:
            entry = Entry.read(self.root / key)
        except ArtifactError:
            return None
        return None if entry.damage() else entry

    def obtain(self, key: str, build: Callable[[Path], EngineManifest], space: int = 0) -> Entry:
        """The engine of a key, built in an empty folder if it is not there whole; who comes meanwhile waits for it.

        `space` are the bytes it needs while it is built. Raises ArtifactError when there is no room, and what `build` raises; the
        store is then as it was.
        """
        if (entry := self.get(key)) is not None:
            return entry
        with self._guard(), self._lock(key):
            if (entry := self.get(key)) is not None:
                return entry
            self._check_space(space)
            with tempfile.TemporaryDirectory(dir=self.root, prefix=f"{NEW}{key}-") as scratch:
                folder = Path(scratch) / "engine"
                folder.mkdir()
                (folder / MANIFEST).write_text(build(folder).to_json())
                _install(folder, self.root / key)
        return Entry.read(self.root / key)

    def entries(self) -> list[Entry]:
        """Every engine whose manifest can be read; their files are not looked at."""
        found = []
        for folder in self._folders():
            try:
                found.append(Entry.read(folder))
            except ArtifactError as error:
                log.warning("%s: %s", folder, error)
        return sorted(found, key=lambda one: (one.manifest.model, one.engine, one.precision))

    def verify(self) -> dict[Path, str]:
        """What is wrong with each damaged engine, by folder; reads every file."""
        problems = {}
        for folder in self._folders():
            try:
                damage = Entry.read(folder).damage()
            except ArtifactError as error:
                problems[folder] = str(error)
            else:
                if damage:
                    problems[folder] = f"{damage} is missing or is not the file of its manifest"
        return problems

    def remove(self, key: str) -> None:
        """Raises ArtifactError while it is being built."""
        with self._guard(), self._lock(key, wait=False):
            shutil.rmtree(self.root / key, ignore_errors=True)

    def leftovers(self) -> list[Path]:
        """What builds that were killed have left."""
        found = []
        for folder in self.root.glob(f"{NEW}*"):
            try:
                with self._lock(folder.name.removeprefix(NEW).partition("-")[0], wait=False):
                    found.append(folder)
            except ArtifactError:
                continue  # at work
        return found

    def _folders(self) -> list[Path]:
        if not self.root.is_dir():
            return []
        return sorted(one for one in self.root.iterdir() if one.is_dir() and not one.name.startswith("."))

    @contextmanager
    def _lock(self, key: str, wait: bool = True) -> Iterator[None]:
        locks = self.root / LOCKS
        locks.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(locks / f"{key}.lock", timeout=-1 if wait else 0):
                yield
        except Timeout as error:
            raise ArtifactError(f"the engine {key[:12]} is being built; wait for it") from error

    def _check_space(self, space: int) -> None:
        free = shutil.disk_usage(self.root).free
        if free < space:
            raise OSError(errno.ENOSPC, f"{free >> 20} MB are free, {space >> 20} MB are needed")

    @contextmanager
    def _guard(self) -> Iterator[None]:
        """Says what to do when the disk is full or not ours."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            yield
        except OSError as error:
            if error.errno in FULL:
                raise ArtifactError(
                    f"no room for the engine in {self.root} ({error.strerror}): free some with `convoy engines prune`, "
                    "or name another folder with --store"
                ) from error
            raise ArtifactError(
                f"{self.root} cannot be used ({error.strerror}): name another folder with --store"
            ) from error


def describe_files(folder: Path, names: tuple[str, ...]) -> tuple[dict[str, str], int]:
    """Hashes of an engine's files, and their bytes in all."""
    return {name: file_hash(folder / name) for name in names}, sum((folder / name).stat().st_size for name in names)


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _install(folder: Path, out: Path) -> None:
    """Puts a finished engine in the place of a damaged one, or of none."""
    for file in folder.iterdir():
        file.chmod(0o644)
        with file.open("rb") as written:
            os.fsync(written.fileno())
    if out.exists():
        shutil.rmtree(out)
    folder.replace(out)
