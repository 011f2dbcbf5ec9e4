"""Engines kept by the hash of what they were made of: built once, whole or not there, verified before they are loaded."""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from convoy.errors import ArtifactError
from models.artifact import MANIFEST
from models.datasets import cache_folder
from models.engines.spec import EngineSpec
from models.engines.store.remote_store import RemoteStore
from models.engines.store.stored_engine import EngineManifest, StoredEngine, files_of

NEW, LOCKS, TIMINGS, CURVES = ".new-", ".locks", ".timings", ".curves"
KEY = re.compile(r"[0-9a-f]{64}")
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

log = logging.getLogger("convoy.engines")


class Store:
    """A folder of engines, which processes, and nodes through a shared volume, may use at the same time.

    With a remote store behind it, what the folder lacks is fetched from there, and what is built is put there, too.
    """

    def __init__(self, root: Path | None = None, remote: RemoteStore | None = None) -> None:
        """Without `root`: `engines` in the user's cache."""
        self.root = root or cache_folder() / "engines"
        self._remote = remote

    @property
    def location(self) -> str:
        """By which `open_store` finds it in another process."""
        return self._remote.url if self._remote else str(self.root)

    @property
    def timings(self) -> Path:
        """A folder for what one build may learn from another: how fast which kernel was."""
        return self.root / TIMINGS

    @property
    def curves(self) -> Path:
        """A folder for how long batches took."""
        return self.root / CURVES

    def find(self, order: EngineSpec) -> StoredEngine | None:
        """A whole engine that serves the order, be it calibrated on other images: an accepted one first, then the newest."""
        fitting = _best_first(order, [one.manifest for one in self.entries()])
        here = (self.get(one.key) for one in fitting)
        return next((one for one in here if one), None) or self._find_remote(order)

    def get(self, key: str) -> StoredEngine | None:
        """The whole engine of a key. What is damaged is not there."""
        try:
            entry = StoredEngine.read(self.root / key)
        except ArtifactError:
            return None
        return None if entry.damage() else entry

    def obtain(self, key: str, build: Callable[[Path], EngineManifest], space: int = 0) -> StoredEngine:
        """The engine of a key, built in an empty folder if it is not there whole; who comes meanwhile waits for it.

        `space` are the bytes it needs while it is built. Raises ArtifactError when there is no room, and what `build` raises; the
        store is then as it was.
        """
        if (entry := self.get(key)) is not None:
            return entry
        with self._guard(), self._lock(key):
            if (entry := self.get(key) or self._fetch(key)) is not None:
                return entry
            self._check_space(space)
            with self._new_folder(key) as folder:
                (folder / MANIFEST).write_text(build(folder).to_json())
                _install(folder, self.root / key)
        entry = StoredEngine.read(self.root / key)
        self._share(entry)
        return entry

    def entries(self) -> list[StoredEngine]:
        """Every engine whose manifest can be read; their files are not looked at."""
        found = []
        for folder in self._folders():
            try:
                found.append(StoredEngine.read(folder))
            except ArtifactError as error:
                log.warning("%s: %s", folder, error)
        return sorted(found, key=lambda one: (one.manifest.model, one.engine, one.precision))

    def verify(self) -> dict[Path, str]:
        """What is wrong with each damaged engine, by folder; reads every file."""
        problems = {}
        for folder in self._folders():
            try:
                damage = StoredEngine.read(folder).damage()
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

    def forget_curves(self) -> None:
        """Removes the latency curves: the next start measures again."""
        for file in self.curves.glob("*.json"):
            if KEY.fullmatch(file.stem):
                file.unlink(missing_ok=True)

    def leftovers(self) -> list[Path]:
        """What builds that were killed have left."""
        found = []
        for folder in self.root.glob(f"{NEW}*"):
            key = folder.name.removeprefix(NEW).partition("-")[0]
            if not KEY.fullmatch(key):
                continue
            try:
                with self._lock(key, wait=False):
                    found.append(folder)
            except ArtifactError:
                continue  # at work
        return found

    def _find_remote(self, order: EngineSpec) -> StoredEngine | None:
        if self._remote is None:
            return None
        for manifest in _best_first(order, self._remote.manifests()):
            with self._guard(), self._lock(manifest.key):
                if entry := self.get(manifest.key) or self._fetch(manifest.key):
                    return entry
        return None

    def _fetch(self, key: str) -> StoredEngine | None:
        """The engine of a key from the remote store, verified; None where it is not, or not whole."""
        if self._remote is None:
            return None
        with self._new_folder(key) as folder:
            try:
                manifest = self._remote.fetch(key, folder)
            except ArtifactError as error:
                log.warning("%s", error)
                return None
            if manifest is None:
                return None
            if damage := StoredEngine(folder, manifest).damage():
                log.warning("%s: %s of the engine %s is damaged; it is built again", self._remote.url, damage, key[:12])
                return None
            _install(folder, self.root / key)
        return StoredEngine.read(self.root / key)

    def _share(self, entry: StoredEngine) -> None:
        if self._remote is None:
            return
        try:
            self._remote.put(entry)
        except ArtifactError as error:
            log.warning("the engine stays on this machine: %s", error)

    @contextmanager
    def _new_folder(self, key: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir=self.root, prefix=f"{NEW}{key}-") as scratch:
            folder = Path(scratch) / "engine"
            folder.mkdir()
            yield folder

    def _folders(self) -> list[Path]:
        """Those named as engines are: `prune` removes what is damaged, and the folder may hold somebody's own files."""
        if not self.root.is_dir():
            return []
        return sorted(one for one in self.root.iterdir() if one.is_dir() and KEY.fullmatch(one.name))

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
            limit = "raise the limit of a file's size (ulimit -f), or " if error.errno == errno.EFBIG else ""
            raise ArtifactError(
                f"{self.root} cannot be used ({error.strerror or error}): {limit}name another folder with --store"
            ) from error


def open_store(where: str = "") -> Store:
    """The store in a folder, or behind a URL with the user's cache in front of it; by default the cache alone.

    Raises ConfigError for a URL that nothing installed can open.
    """
    if "://" in where:
        return Store(remote=RemoteStore(where))
    return Store(Path(where).expanduser() if where else None)


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _install(folder: Path, out: Path) -> None:
    """Puts a finished engine in the place of a damaged one, or of none."""
    for file in files_of(folder):
        file.chmod(0o644)
        with file.open("rb") as written:
            os.fsync(written.fileno())
    if out.exists():
        shutil.rmtree(out)
    folder.replace(out)


def _best_first(order: EngineSpec, manifests: Iterable[EngineManifest]) -> list[EngineManifest]:
    """Those that serve the order: an accepted one first, then the newest."""
    fitting = [one for one in manifests if not order.differences(one.recipe)]
    return sorted(fitting, key=lambda one: (one.judgement["status"] == "accepted", str(one.made["date"])), reverse=True)
