"""Which engine of a model runs: the one that is asked for if it is in the store, until then the artifact's own graphs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from convoy.errors import ConfigError
from models.artifact import IMAGE_MODEL, TENSOR_MODEL, Artifact
from models.engines.backends.registry import find_backend
from models.engines.build.eval_data import find_eval_source
from models.engines.engine import Engine, Precision
from models.engines.spec import EngineSpec, spec_key
from models.engines.store.store import Store
from serve.config.schema import ModelConfig, Settings

OWN_ENGINE = "onnxruntime"  # what an artifact's graphs run in as they are
OWN_PRECISION: Precision = "fp32"
OWN_STATUS = "reference"
FORMS = (IMAGE_MODEL, TENSOR_MODEL)


log = logging.getLogger("convoy.engines")


@dataclass(frozen=True)
class EngineFacts:
    """What really runs. `status` is the gate's, or `reference`; `problem` says why it is not what is asked for, if so."""

    engine: str
    version: str
    platform: str
    precision: Precision
    status: str
    problem: str = ""

    @property
    def label(self) -> str:
        return f"{self.engine} {self.version} {self.precision}"


@dataclass(frozen=True)
class Chosen:
    """An engine that is here: the folder of its graphs, the hash of what it was made of, and what will run."""

    folder: Path
    identity: str
    facts: EngineFacts


@dataclass(frozen=True)
class Opened:
    """The engines of both forms, not yet warm. `identity` is the hash of what they were made of."""

    image: Engine
    tensor: Engine
    facts: EngineFacts
    identity: str


def is_own(engine: str, precision: str) -> bool:
    """Whether that is what an artifact's graphs run in as they are."""
    return (engine, precision) == (OWN_ENGINE, OWN_PRECISION)


def serves_artifact(model: ModelConfig) -> bool:
    """Whether the artifact's own graphs are what is asked for."""
    return is_own(model.engine, model.precision)


def order_of(model: ModelConfig, artifact: Artifact) -> EngineSpec:
    """What a configuration asks for."""
    return EngineSpec(artifact, find_backend(model.engine), model.precision, find_eval_source(artifact))


def check_engines(settings: Settings, artifacts: Mapping[str, Artifact]) -> None:
    """Raises ConfigError for an engine that is not installed, or does not run the precision on this machine."""
    for model in settings.models:
        try:
            order_of(model, artifacts[model.name]).check()
        except ConfigError as error:
            raise ConfigError(f"{model.name}: {error}") from error


def asked_for(model: ModelConfig, problem: str) -> EngineFacts:
    """What would run, were it not for `problem`."""
    return _facts(model.engine, model.precision, "", problem)


def choose_engine(model: ModelConfig, artifact: Artifact, store: Store) -> Chosen:
    """The engine that is asked for if it is in the store, else the artifact's own."""
    problem = ""
    if not serves_artifact(model):
        if entry := store.find(order_of(model, artifact)):
            return Chosen(entry.folder, entry.manifest.key, _facts(model.engine, model.precision, entry.status))
        problem = f"{model.engine} {model.precision} is not built yet"
    facts = _facts(OWN_ENGINE, OWN_PRECISION, OWN_STATUS, problem)
    return Chosen(artifact.folder, spec_key(artifact.manifest.files), facts)


def open_engines(model: ModelConfig, artifact: Artifact, store: Store, threads: int) -> Opened:
    """Loads what is chosen; its two forms share what the model may use of a GPU's memory. Raises ArtifactError."""
    chosen = choose_engine(model, artifact, store)
    facts, backend = chosen.facts, find_backend(chosen.facts.engine)
    share = min(model.gpus or 1.0, 1.0) / len(FORMS)
    image, tensor = (backend.load(chosen.folder / name, threads, facts.precision, share) for name in FORMS)
    return Opened(image, tensor, facts, chosen.identity)


def _facts(engine: str, precision: Precision, status: str, problem: str = "") -> EngineFacts:
    backend = find_backend(engine)
    return EngineFacts(engine, backend.version, backend.platform, precision, status, problem)
