"""Selects the engine that runs: the configured one once it is in the store, until then the artifact's own graphs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from convoy.engine_names import Precision
from convoy.errors import ConfigError
from models.artifact import IMAGE_MODEL, TENSOR_MODEL, Artifact
from models.engines.backends.registry import Backend, find_backend
from models.engines.build.eval_data import find_eval_source
from models.engines.engine import Engine
from models.engines.spec import EngineSpec, spec_key
from models.engines.store.store import Store
from serve.config.schema import ModelConfig, Settings
from serve.executors.base import EngineFacts, Form

OWN_ENGINE = "onnxruntime"  # runs an artifact's own graphs, without a build
OWN_PRECISION: Precision = "fp32"
OWN_STATUS = "reference"
GRAPHS: dict[Form, str] = {"image": IMAGE_MODEL, "tensor": TENSOR_MODEL}


@dataclass(frozen=True)
class SelectedEngine:
    """An engine on disk: the folder of its graphs, the hash of its build inputs, and its facts."""

    folder: Path
    key: str
    facts: EngineFacts

    def load(self, threads: int, gpus: float) -> dict[Form, Engine]:
        """Loads both forms, not yet warm, on at most `gpus` of a GPU (0: a CPU engine). Raises ArtifactError."""
        backend = find_backend(self.facts.engine)
        share = min(gpus or 1.0, 1.0) / len(GRAPHS)  # both forms are on the same GPU
        return {
            form: backend.load(self.folder / file, threads, self.facts.precision, share)
            for form, file in GRAPHS.items()
        }


def is_own(engine: str, precision: str) -> bool:
    """Whether this engine and precision run the artifact's own graphs."""
    return (engine, precision) == (OWN_ENGINE, OWN_PRECISION)


def serves_artifact(model: ModelConfig) -> bool:
    """Whether the model is configured to run the artifact's own graphs."""
    return is_own(model.engine, model.precision)


def build_spec(model: ModelConfig, artifact: Artifact) -> EngineSpec:
    """The build spec of the configured engine. Raises ConfigError where its backend, or the GPU, is missing."""
    return EngineSpec(artifact, find_backend(model.engine), model.precision, find_eval_source(artifact))


def check_engines(settings: Settings, artifacts: Mapping[str, Artifact]) -> None:
    """Raises ConfigError for an engine that is not installed, or does not run the precision on this machine."""
    for model in settings.models:
        try:
            build_spec(model, artifacts[model.name]).check()
        except ConfigError as error:
            raise ConfigError(f"{model.name}: {error}") from error


def configured_facts(spec: EngineSpec, problem: str) -> EngineFacts:
    """The facts of the configured engine, which `problem` keeps from running."""
    return _facts(spec.backend, spec.precision, "", problem)


def select_engine(spec: EngineSpec, store: Store) -> SelectedEngine:
    """The engine of the build spec if the store has it, else the artifact's own graphs with the reason."""
    problem = ""
    if not is_own(spec.backend.name, spec.precision):
        if stored := store.find(spec):
            facts = _facts(spec.backend, spec.precision, stored.status)
            return SelectedEngine(stored.folder, stored.manifest.key, facts)
        problem = f"{spec.backend.name} {spec.precision} is not built yet"
    facts = _facts(find_backend(OWN_ENGINE), OWN_PRECISION, OWN_STATUS, problem)
    return SelectedEngine(spec.artifact.folder, spec_key(spec.artifact.manifest.files), facts)


def _facts(backend: Backend, precision: Precision, status: str, problem: str = "") -> EngineFacts:
    return EngineFacts(backend.name, backend.version, backend.platform, precision, status, problem)
