"""A stored engine: its folder, and the manifest that describes how it was built and checked."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from convoy.errors import ArtifactError
from convoy.validation import explain
from models.artifact import MANIFEST, file_hash
from models.engines.spec import spec_key


@dataclass(frozen=True)
class EngineManifest:
    """How an engine was built, and the result of its accuracy check. The field names are the JSON of the file.

    `key` is the hash of `recipe` (see `EngineSpec`), `judgement` an `AccuracyCheck` with the name of its evaluation data,
    `made` when, how and in how many seconds it was built, `files` the sha256 of each file by its path, `size` their bytes.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    key: str
    model: str
    recipe: Mapping[str, Any]
    judgement: Mapping[str, Any]
    made: Mapping[str, Any]
    files: Mapping[str, str]
    size: int

    @classmethod
    def from_json(cls, text: bytes) -> EngineManifest:
        """Raises ArtifactError, also for a file name outside the folder: a remote store is not trusted."""
        try:
            manifest = MANIFEST_DOCUMENT.validate_json(text, strict=True)
        except ValidationError as error:
            raise ArtifactError(f"its manifest cannot be read: {explain(error, MANIFEST_KEYS)}") from error
        if manifest.key != spec_key(manifest.recipe):
            raise ArtifactError("its key is not that of its recipe")
        needed = {"recipe": ("engine", "precision"), "judgement": ("status",), "made": ("date",)}
        missing = [
            f"{part}.{key}" for part, keys in needed.items() for key in keys if key not in getattr(manifest, part)
        ]
        if missing:
            raise ArtifactError(f"its manifest cannot be read: {missing[0]} is missing")
        if any(PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts for name in manifest.files):
            raise ArtifactError("its files lie outside its folder")
        return manifest

    def to_json(self) -> str:
        """The text of the manifest's file; `from_json` reads it."""
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"


MANIFEST_DOCUMENT = TypeAdapter(EngineManifest)
MANIFEST_KEYS = [field.name for field in dataclasses.fields(EngineManifest)]


@dataclass(frozen=True)
class StoredEngine:
    """An engine in its folder."""

    folder: Path
    manifest: EngineManifest

    @classmethod
    def read(cls, folder: Path) -> StoredEngine:
        """Reads only the manifest. Raises ArtifactError."""
        try:
            manifest = EngineManifest.from_json((folder / MANIFEST).read_bytes())
        except OSError as error:
            raise ArtifactError(f"its manifest cannot be read: {error.strerror}") from error
        if manifest.key != folder.name:
            raise ArtifactError("its folder is not named by its key")
        return cls(folder, manifest)

    @property
    def status(self) -> str:
        """The result of the accuracy check."""
        return str(self.manifest.judgement["status"])

    @property
    def engine(self) -> str:
        """Name of its backend."""
        return str(self.manifest.recipe["engine"])

    @property
    def precision(self) -> str:
        """Number format that it was built in."""
        return str(self.manifest.recipe["precision"])

    def damage(self) -> str:
        """The first file that is missing or differs from the manifest; empty if all are intact. Reads every file."""
        return next((name for name, known in self.manifest.files.items() if file_hash(self.folder / name) != known), "")


def describe_files(folder: Path) -> tuple[dict[str, str], int]:
    """The sha256 of an engine's files by their path in its folder, and their total size in bytes."""
    files = files_of(folder)
    hashes = {file.relative_to(folder).as_posix(): file_hash(file) for file in files}
    return hashes, sum(file.stat().st_size for file in files)


def files_of(folder: Path) -> list[Path]:
    """All files below a folder, sorted by path."""
    return sorted(file for file in folder.rglob("*") if file.is_file())
