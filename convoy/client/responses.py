"""Typed responses of a server, parsed from its JSON documents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convoy.errors import ConvoyError

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Class:
    """One class of a prediction; `label` is empty when only indices were requested."""

    index: int
    label: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """The best classes of one image, best first."""

    classes: tuple[Class, ...]


@dataclass(frozen=True)
class Member:
    """One member's part in the response of an ensemble or cascade; `outcome` is answered, late or failed."""

    model: str
    version: str
    images: int
    outcome: str
    ms: float
    engine_ms: float
    reason: str = ""


@dataclass(frozen=True)
class Energy:
    """The energy of a response in millijoules; None while the server has no measurement."""

    millijoules: float | None
    source: str = ""
    method: str = ""


@dataclass(frozen=True)
class Classification:
    """A classification: one prediction per image, and the server's timings in milliseconds."""

    id: str
    model: str
    version: str
    predictions: tuple[Prediction, ...]
    timings_ms: Mapping[str, float]
    batch_size: int
    members: tuple[Member, ...] = ()
    arm: str = ""  # of the experiment, if the model is one
    energy: Energy | None = None


@dataclass(frozen=True)
class FileAnswer:
    """The classification of one file, or its error."""

    path: Path
    answer: Classification | None = None
    error: ConvoyError | None = None


@dataclass(frozen=True)
class ModelSummary:
    """A served model."""

    name: str
    version: str
    dataset: str
    classes: int


def unreadable(server: str, error: Exception) -> ConvoyError:
    """The error for a response that does not follow the protocol."""
    return ConvoyError(f"the response of {server} cannot be read: {error}")


def parse_classification(server: str, document: Document, energy: bool = False) -> Classification:
    """Parses a classification; `energy`: whether it was requested. Raises ConvoyError for another document."""
    try:
        return Classification(
            document["id"],
            document["model"],
            document["version"],
            tuple(_prediction(entry) for entry in document["predictions"]),
            document["timings_ms"],
            document["batch_size"],
            tuple(Member(**member) for member in document.get("members", ())),
            document.get("arm", ""),
            _energy(document) if energy else None,
        )
    except (KeyError, TypeError) as error:
        raise unreadable(server, error) from error


def _prediction(entry: Document) -> Prediction:
    return Prediction(
        tuple(Class(item["index"], item.get("label", ""), item["probability"]) for item in entry["classes"])
    )


def _energy(document: Document) -> Energy:
    return Energy(document.get("energy_mj"), document.get("energy_source", ""), document.get("energy_method", ""))


def parse_models(server: str, document: Document) -> list[ModelSummary]:
    """Parses a list of models. Raises ConvoyError for another document."""
    try:
        return [
            ModelSummary(item["name"], item["version"], item["dataset"], item["classes"]) for item in document["models"]
        ]
    except (KeyError, TypeError) as error:
        raise unreadable(server, error) from error
