"""The store of built engines, by the key of their build spec: built once, installed atomically, verified before a load."""

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
from convoy.files import expand_home
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
    """A folder of engines that processes, and nodes through a shared volume, may use at the same time.

    With a remote store behind it, missing engines are fetched from there, and built ones are uploaded.
    """

    def __init__(self, root: Path | None = None, remote: RemoteStore | None = None) -> None:
        """`root` is by default the folder `engines` in the user's cache."""
        self.root = root or cache_folder() / "engines"
        self._remote = remote

    @property
    def location(self) -> str:
        """The argument with which another process opens this store by `open_store`."""
        return self._remote.url if self._remote else str(self.root)

    @property
    def timings(self) -> Path:
        """A folder in which backends keep the measured speeds of their kernels, which makes later builds faster."""
        return self.root / TIMINGS

    @property
    def curves(self) -> Path:
        """A folder for latency curves."""
        return self.root / CURVES

    def find(self, spec: EngineSpec) -> StoredEngine | None:
        """The best intact engine that serves the spec, even if calibrated on other images; None if there is none.

        An accepted engine comes before an unproven one, then the newest first.
        """
        fitting = _best_first(spec, [stored.manifest for stored in self.entries()])
        intact = (self.get(manifest.key) for manifest in fitting)
        return next((stored for stored in intact if stored), None) or self._find_remote(spec)

    def get(self, key: str) -> StoredEngine | None:
        """The intact engine of a key; None if it is missing or damaged. Reads every file."""
        try:
            stored = StoredEngine.read(self.root / key)
        except ArtifactError:
            return None
        return None if stored.damage() else stored

    def obtain(self, key: str, build: Callable[[Path], EngineManifest], space: int = 0) -> StoredEngine:
        """The engine of a key; if it is missing or damaged, `build` makes it in an empty folder.

        Other processes that want the same key wait for the build. `space` is the number of bytes that a build needs. Raises
        ArtifactError if the disk has less, or the error of `build`; the store is then unchanged.
        """
        if (stored := self.get(key)) is not None:
            return stored
        with self._explain_errors(), self._lock(key):
            if (stored := self.get(key) or self._fetch(key)) is not None:  # another process was faster
                return stored
            self._check_space(space)
            with self._new_folder(key) as folder:
                (folder / MANIFEST).write_text(build(folder).to_json())
                _install(folder, self.root / key)
        stored = StoredEngine.read(self.root / key)
        self._upload(stored)
        return stored

    def entries(self) -> list[StoredEngine]:
        """Every engine whose manifest can be read, sorted by model; other files are not read."""
        found = []
        for folder in self._folders():
            try:
                found.append(StoredEngine.read(folder))
            except ArtifactError as error:
                log.warning("%s: %s", folder, error)
        return sorted(found, key=lambda stored: (stored.manifest.model, stored.engine, stored.precision))

    def verify(self) -> dict[Path, str]:
        """The damaged engines by their folder, each with its problem. Reads every file."""
        problems = {}
        for folder in self._folders():
            try:
                damage = StoredEngine.read(folder).damage()
            except ArtifactError as error:
                problems[folder] = str(error)
            else:
                if damage:
                    problems[folder] = f"{damage} is missing or differs from its manifest"
        return problems

    def remove(self, key: str) -> None:
        """Raises ArtifactError while it is being built."""
        with self._explain_errors(), self._lock(key, wait=False):
            shutil.rmtree(self.root / key, ignore_errors=True)

    def forget_curves(self) -> None:
        """Removes the latency curves, so that the next start measures again."""
        for file in self.curves.glob("*.json"):
            if KEY.fullmatch(file.stem):
                file.unlink(missing_ok=True)

    def leftovers(self) -> list[Path]:
        """Folders of builds that were killed."""
        found = []
        for folder in self.root.glob(f"{NEW}*"):
            key = folder.name.removeprefix(NEW).partition("-")[0]
            if not KEY.fullmatch(key):
                continue
            try:
                with self._lock(key, wait=False):
                    found.append(folder)
            except ArtifactError:
                continue  # the build is still running
        return found

    def _find_remote(self, spec: EngineSpec) -> StoredEngine | None:
        if self._remote is None:
            return None
        for manifest in _best_first(spec, self._remote.manifests()):
            with self._explain_errors(), self._lock(manifest.key):
                if stored := self.get(manifest.key) or self._fetch(manifest.key):
                    return stored
        return None

    def _fetch(self, key: str) -> StoredEngine | None:
        """Downloads and verifies the engine of a key; None if the remote store lacks it, cannot be used, or has damaged files."""
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
                log.warning(
                    "%s: %s of the engine %s is damaged; the engine is built again", self._remote.url, damage, key[:12]
                )
                return None
            _install(folder, self.root / key)
        return StoredEngine.read(self.root / key)

    def _upload(self, stored: StoredEngine) -> None:
        """Uploads a built engine. A failure is only logged: the engine is on this machine already."""
        if self._remote is None:
            return
        try:
            self._remote.put(stored)
        except ArtifactError as error:
            log.warning("the engine stays on this machine: %s", error)

    @contextmanager
    def _new_folder(self, key: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir=self.root, prefix=f"{NEW}{key}-") as scratch:
            folder = Path(scratch) / "engine"
            folder.mkdir()
            yield folder

    def _folders(self) -> list[Path]:
        """The folders named by a key, and no others: `prune` deletes folders, and users may keep their own files here."""
        if not self.root.is_dir():
            return []
        return sorted(folder for folder in self.root.iterdir() if folder.is_dir() and KEY.fullmatch(folder.name))

    @contextmanager
    def _lock(self, key: str, wait: bool = True) -> Iterator[None]:
        locks = self.root / LOCKS
        locks.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(locks / f"{key}.lock", timeout=-1 if wait else 0):
                yield
        except Timeout as error:
            raise ArtifactError(
                f"the engine {key[:12]} is being built; try again when the build has finished"
            ) from error

    def _check_space(self, space: int) -> None:
        free = shutil.disk_usage(self.root).free
        if free < space:
            raise OSError(errno.ENOSPC, f"{free >> 20} MB are free, {space >> 20} MB are needed")

    @contextmanager
    def _explain_errors(self) -> Iterator[None]:
        """Converts errors of the file system to ArtifactError, with the remedy."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            yield
        except OSError as error:
            if error.errno in FULL:
                raise ArtifactError(
                    f"no room for the engine in {self.root} ({error.strerror}): free some with `convoy engines prune`, "
                    "or name another folder with --store"
                ) from error
            limit = "raise the limit of file sizes (ulimit -f), or " if error.errno == errno.EFBIG else ""
            raise ArtifactError(
                f"{self.root} cannot be used ({error.strerror or error}): {limit}name another folder with --store"
            ) from error


def open_store(where: str = "") -> Store:
    """The store in a folder, or behind a URL with the user's cache in front of it; by default the cache only.

    Raises ConfigError for a URL that no installed package can open.
    """
    if "://" in where:
        return Store(remote=RemoteStore(where))
    return Store(expand_home(where) if where else None)


def now() -> str:
    """UTC, in ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _install(folder: Path, out: Path) -> None:
    """Moves a finished engine to its place; replaces a damaged one."""
    for file in files_of(folder):
        file.chmod(0o644)
        with file.open("rb") as written:
            os.fsync(written.fileno())
    if out.exists():
        shutil.rmtree(out)
    folder.replace(out)


def _best_first(spec: EngineSpec, manifests: Iterable[EngineManifest]) -> list[EngineManifest]:
    """The manifests of engines that serve the spec: accepted ones first, then the newest."""

    def rank(manifest: EngineManifest) -> tuple[bool, str]:
        return manifest.judgement["status"] == "accepted", str(manifest.made["date"])

    return sorted((manifest for manifest in manifests if not spec.differences(manifest.recipe)), key=rank, reverse=True)
