"""Engines that machines share through an object store or a volume: whatever fsspec opens by URL. Needs the extra `store`.

Each is a folder named by its key. Its manifest is written last, so that who finds one finds the files, too; whether they are
whole is for whoever fetched them to verify.
"""

from __future__ import annotations

import importlib
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from convoy.errors import ArtifactError, ConfigError
from models.artifact import MANIFEST
from models.engines.store.stored_engine import EngineManifest, StoredEngine

log = logging.getLogger("convoy.engines")


class RemoteStore:
    """The engines behind a URL such as s3://bucket/engines or file:///mnt/engines."""

    def __init__(self, url: str) -> None:
        """Raises ConfigError for a URL that nothing installed can open."""
        self.url = url
        try:
            fsspec = importlib.import_module("fsspec")
            # An instance of its own: what is in a transaction is known to the file system, not to the caller.
            self._files, self._root = fsspec.core.url_to_fs(url, skip_instance_cache=True)
        except ModuleNotFoundError as error:
            remedy = "pip install 'convoy-serve[store]'"
            raise ConfigError(f"engines: {url} needs {error.name}; install it with: {remedy}") from error
        except (ImportError, ValueError) as error:
            raise ConfigError(f"engines: {url} cannot be opened: {error}") from error

    def manifests(self) -> Iterator[EngineManifest]:
        """Those that can be read; none, with a warning, from a store that is away."""
        try:
            with self._told():
                found = self._files.glob(f"{self._root}/*/{MANIFEST}")
        except ArtifactError as error:
            log.warning("%s", error)
            return
        for path in found:
            try:
                yield self._manifest(path)
            except ArtifactError as error:
                log.warning("%s", error)

    def fetch(self, key: str, folder: Path) -> EngineManifest | None:
        """Copies an engine into an empty folder; None where there is none. Raises ArtifactError."""
        path = f"{self._root}/{key}"
        with self._told():
            if not self._files.exists(f"{path}/{MANIFEST}"):
                return None
        manifest = self._manifest(f"{path}/{MANIFEST}")
        if manifest.key != key:
            raise ArtifactError(f"{self.url}: {key[:12]} holds the engine {manifest.key[:12]}")
        for name in manifest.files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            with self._told():
                self._files.get_file(f"{path}/{name}", str(folder / name))
        (folder / MANIFEST).write_text(manifest.to_json())
        return manifest

    def put(self, entry: StoredEngine) -> None:
        """Copies an engine there. Raises ArtifactError."""
        path = f"{self._root}/{entry.manifest.key}"
        with self._told(), self._files.transaction:
            for name in (*entry.manifest.files, MANIFEST):
                self._files.makedirs(f"{path}/{name}".rpartition("/")[0], exist_ok=True)
                with (entry.folder / name).open("rb") as source, self._files.open(f"{path}/{name}", "wb") as out:
                    shutil.copyfileobj(source, out)

    def _manifest(self, path: str) -> EngineManifest:
        with self._told():
            text: Any = self._files.cat_file(path)
        try:
            return EngineManifest.from_json(text)
        except ArtifactError as error:
            raise ArtifactError(f"{path}: {error}") from error

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Every file system has errors of its own."""
        try:
            yield
        except Exception as error:
            raise ArtifactError(f"{self.url} cannot be used ({type(error).__name__}: {error})") from error
