"""Engines that machines share through an object store, or anything else that fsspec opens by URL. Needs the extra `store`.

Each engine is a folder named by its key. The manifest is written last, so that an engine with a manifest has all its files.
The caller has to verify fetched files: objects have no locks, so that two machines may upload the same engine at once.
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
    """The engines below a URL such as s3://bucket/engines or file:///mnt/engines."""

    def __init__(self, url: str) -> None:
        """Raises ConfigError for a URL that no installed package can open."""
        self.url = url
        try:
            fsspec = importlib.import_module("fsspec")
            # fsspec shares instances, and a transaction belongs to the instance: files of another thread would join this one.
            self._files, self._root = fsspec.core.url_to_fs(url, skip_instance_cache=True)
        except ModuleNotFoundError as error:
            remedy = "pip install 'convoy-serve[store]'"
            raise ConfigError(f"engines: {url} needs {error.name}; install it with: {remedy}") from error
        except (ImportError, ValueError) as error:
            raise ConfigError(f"engines: {url} cannot be opened: {error}; correct the URL, or name a folder") from error

    def manifests(self) -> Iterator[EngineManifest]:
        """The manifests that can be read. Logs a warning, and yields none, if the store cannot be reached."""
        try:
            with self._wrap_errors():
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
        """Copies an engine into an empty folder; None if the store has none with this key. Raises ArtifactError."""
        path = f"{self._root}/{key}"
        with self._wrap_errors():
            if not self._files.exists(f"{path}/{MANIFEST}"):
                return None
        manifest = self._manifest(f"{path}/{MANIFEST}")
        if manifest.key != key:
            raise ArtifactError(f"{self.url}: {key[:12]} holds the engine {manifest.key[:12]}")
        for name in manifest.files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            with self._wrap_errors():
                self._files.get_file(f"{path}/{name}", str(folder / name))
        (folder / MANIFEST).write_text(manifest.to_json())
        return manifest

    def put(self, stored: StoredEngine) -> None:
        """Uploads an engine. Raises ArtifactError."""
        path = f"{self._root}/{stored.manifest.key}"
        with self._wrap_errors(), self._files.transaction:
            for name in (*stored.manifest.files, MANIFEST):
                self._files.makedirs(f"{path}/{name}".rpartition("/")[0], exist_ok=True)
                with (stored.folder / name).open("rb") as source, self._files.open(f"{path}/{name}", "wb") as out:
                    shutil.copyfileobj(source, out)

    def _manifest(self, path: str) -> EngineManifest:
        with self._wrap_errors():
            text: Any = self._files.cat_file(path)
        try:
            return EngineManifest.from_json(text)
        except ArtifactError as error:
            raise ArtifactError(f"{path}: {error}") from error

    @contextmanager
    def _wrap_errors(self) -> Iterator[None]:
        """Converts errors to ArtifactError: each file system of fsspec raises its own types."""
        try:
            yield
        except Exception as error:
            raise ArtifactError(f"{self.url} cannot be used ({type(error).__name__}: {error})") from error
