"""Artifacts: compiled models with a manifest of their origin, preprocessing, accuracy and file hashes.

A folder holds `manifest.json`, `image.onnx` (UINT8 NHWC in), `tensor.onnx` (FP32 NCHW in, normalised) and `weights.bin`,
the weights that both graphs share.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from convoy.errors import ArtifactError
from convoy.validation import explain

BUNDLED = Path(__file__).resolve().parent / "bundled"
MANIFEST = "manifest.json"
IMAGE_MODEL = "image.onnx"
TENSOR_MODEL = "tensor.onnx"
WEIGHTS = "weights.bin"


@dataclass(frozen=True)
class Preprocessing:
    """From image to network input: resize the short side to `resize`, crop `size` x `size`, (x/255 - mean) / std.

    The graph then pads every side with `pad` pixels of normalised black.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    channels: int
    resize: int
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pad: int = 0


@dataclass(frozen=True)
class Manifest:
    """The description of an artifact. `accuracy` has `top1` (0..1), `images`, `split` and `how`; `macs` are for one image.

    `calibration`, if it was fitted: `temperature`, expected calibration error `ece_before` and `ece_after` (0..1),
    `images` and `split`.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: str
    version: str
    architecture: str
    dataset: str
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    params: int
    macs: int
    accuracy: Mapping[str, Any]
    files: Mapping[str, str]
    parity: Mapping[str, Any]
    made: Mapping[str, Any]
    source: str
    licence: str
    calibration: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """The text of `manifest.json`; `from_json` reads it."""
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Manifest:
        """Raises ArtifactError on keys that are missing, unknown or of another type."""
        try:
            return MANIFEST_DOCUMENT.validate_json(text, strict=True)
        except ValidationError as error:
            raise ArtifactError(f"the manifest cannot be read: {explain(error, MANIFEST_KEYS)}") from error


MANIFEST_DOCUMENT = TypeAdapter(Manifest)
MANIFEST_KEYS = [key.name for key in dataclasses.fields(Manifest)]


@dataclass(frozen=True)
class Artifact:
    """A folder whose files match the hashes of its manifest."""

    folder: Path
    manifest: Manifest

    @classmethod
    def load(cls, folder: Path) -> Artifact:
        """Reads an artifact and verifies its files. Raises ArtifactError, with the remedy."""
        try:
            manifest = Manifest.from_json((folder / MANIFEST).read_bytes())
        except OSError as error:
            raise ArtifactError(
                f"no artifact in {folder} ({error.strerror}); compile one with: python -m models.compile"
            ) from error
        except ArtifactError as error:
            raise ArtifactError(f"{folder / MANIFEST}: {error}; compile the artifact again") from error
        for name, expected in manifest.files.items():
            if file_hash(folder / name) != expected:
                raise ArtifactError(
                    f"{folder / name} is missing or is not the file of its manifest; compile the artifact again"
                )
        return cls(folder, manifest)

    @property
    def image_model(self) -> Path:
        """Path of the ONNX graph that takes UINT8 images."""
        return self.folder / IMAGE_MODEL

    @property
    def tensor_model(self) -> Path:
        """Path of the ONNX graph that takes the preprocessed FP32 tensor."""
        return self.folder / TENSOR_MODEL


def file_hash(path: Path) -> str:
    """sha256 of a file, or an empty string when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):  # ValueError: a zero byte in the path
        return ""
