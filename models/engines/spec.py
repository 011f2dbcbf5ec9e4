"""What the factory is asked for, and the key under which it is kept: the hash of everything that the engine depends on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import onnxruntime

from convoy.errors import ConfigError
from models.artifact import Artifact
from models.datasets import Images, Labels
from models.engines.backends.registry import Backend, installed_backends
from models.engines.engine import Precision

BUDGET = 0.005  # of top-1, as a share

FORMAT = 1  # of entries; a new one makes every key new
BATCHES = (1, 8, 32)
FREE = frozenset({"batches", "budget", "calibration"})  # what may differ between engines that serve the same


@dataclass(frozen=True)
class EngineSpec:
    """An engine of an artifact: by which backend, in which precision, checked at which batch sizes, judged by what."""

    artifact: Artifact
    backend: Backend
    precision: Precision
    source: EvalSource | None = None
    batches: tuple[int, ...] = BATCHES
    budget: float = BUDGET

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """Everything that the engine depends on, JSON-ready."""
        manifest = self.artifact.manifest
        return {
            "format": FORMAT,
            "files": dict(manifest.files),
            "preprocessing": json.loads(json.dumps(dataclasses.asdict(manifest.preprocessing))),
            "engine": self.backend.name,
            "versions": {self.backend.name: self.backend.version, "quantization": str(onnxruntime.__version__)},
            "precision": self.precision,
            "batches": list(self.batches),
            "budget": self.budget,
            "calibration": self.source.identity if self.source and self.precision != "fp32" else "",
            "hardware": self.backend.hardware(),
        }

    @property
    def key(self) -> str:
        return spec_key(self.recipe)

    def differences(self, recipe: Mapping[str, Any]) -> list[str]:
        """What keeps an engine of another recipe from serving this order."""
        mine = self.recipe
        return [name for name in mine if name not in FREE and recipe.get(name) != mine[name]]

    def check(self) -> None:
        """Raises ConfigError for a precision that the backend does not run on this machine."""
        if self.precision in self.backend.precisions():
            return
        others = [one.name for one in installed_backends() if self.precision in one.precisions()]
        remedy = f"it runs with {', '.join(others)}" if others else "no installed engine runs it on this machine"
        offered = ", ".join(self.backend.precisions())
        raise ConfigError(f"{self.backend.name} does not run {self.precision} on this machine, but {offered}; {remedy}")


def spec_key(recipe: Mapping[str, Any]) -> str:
    """sha256 of the recipe's canonical JSON."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class EvalData:
    """Rows UINT8 [n, size, size, channels]: `calibrate` sets the ranges, `judge` (with labels, if they are known) decides."""

    calibrate: Images
    judge: Images
    labels: Labels | None


@dataclass(frozen=True)
class EvalSource:
    """Where evidence comes from; `identity` is the sha256 of what it is, known without reading it all."""

    name: str
    identity: str
    read: Callable[[], EvalData]
