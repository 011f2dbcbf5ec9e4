"""The build spec of an engine, and its key in the store: the hash of everything that the engine depends on.

A built engine is never changed. A new version, another CPU or other weights make another key, so that an engine that does
not fit is not found, instead of being found and invalidated.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import onnxruntime

from convoy.engine_names import Precision
from convoy.errors import ConfigError
from models.artifact import Artifact
from models.datasets import Images, Labels
from models.engines.backends.registry import Backend, installed_backends

BUDGET = 0.005  # allowed loss of top-1 accuracy, as a share
FORMAT = 1  # of stored engines; increasing it changes every key, so that all engines are built again
BATCHES = (1, 8, 32)
# Parts of a recipe in which an engine may differ and still serve a spec: the user may have calibrated on other images.
FREE = frozenset({"batches", "budget", "calibration"})


@dataclass(frozen=True)
class EngineSpec:
    """The engine of an artifact to build: backend, precision, batch sizes to check, and the accuracy check.

    `source` gives the evaluation data; without it int8 cannot be calibrated, and fp16 and bf16 stay unproven. `budget` is
    the share of top-1 accuracy that may be lost.
    """

    artifact: Artifact
    backend: Backend
    precision: Precision
    source: EvalSource | None = None
    batches: tuple[int, ...] = BATCHES
    budget: float = BUDGET

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """Everything that the engine depends on, JSON-ready. Written to manifests, so that names must not change."""
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
        """The name of the engine in the store: sha256 of the recipe, as hexadecimal digits."""
        return spec_key(self.recipe)

    def differences(self, recipe: Mapping[str, Any]) -> list[str]:
        """Names of the parts of `recipe` for which its engine must not serve this spec; empty if it may."""
        return [name for name, value in self.recipe.items() if name not in FREE and recipe.get(name) != value]

    def check(self) -> None:
        """Raises ConfigError for a precision that the backend does not run on this machine."""
        if self.precision in self.backend.precisions():
            return
        others = [backend.name for backend in installed_backends() if self.precision in backend.precisions()]
        remedy = f"use {', '.join(others)}" if others else "no installed engine runs it here: use another precision"
        offered = ", ".join(self.backend.precisions())
        raise ConfigError(
            f"{self.backend.name} does not run {self.precision} on this machine, only {offered}; {remedy}"
        )


def spec_key(recipe: Mapping[str, Any]) -> str:
    """sha256 of the recipe's canonical JSON, as hexadecimal digits."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class EvalData:
    """Evaluation data: images uint8 [n, size, size, channels] for calibration and, disjoint, for the accuracy check.

    `calibrate` sets the ranges of int8 activations, `judge` is for the accuracy check, with `labels` int64 [n] if known.
    """

    calibrate: Images
    judge: Images
    labels: Labels | None


@dataclass(frozen=True)
class EvalSource:
    """Where evaluation data comes from. `identity` is a sha256 that identifies the data without reading all of it."""

    name: str
    identity: str
    read: Callable[[], EvalData]
