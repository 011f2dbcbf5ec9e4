"""What a client gets back, as typed values made of the server's JSON documents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convoy.errors import ConvoyError

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Class:
    """One class of a prediction; `label` is empty when only indices were asked for."""

    index: int
    label: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """The best classes of one image, best first."""

    classes: tuple[Class, ...]


@dataclass(frozen=True)
class Member:
    """Who took part in the answer of an ensemble or cascade; `outcome` is answered, late or failed."""

    model: str
    version: str
    images: int
    outcome: str
    ms: float
    engine_ms: float
    reason: str = ""


@dataclass(frozen=True)
class Energy:
    """What an answer cost in millijoules; None while the server knows no price."""

    millijoules: float | None
    source: str = ""
    method: str = ""


@dataclass(frozen=True)
class Classification:
    """A server's answer: a prediction per image, and its own times in milliseconds."""

    id: str
    model: str
    version: str
    predictions: tuple[Prediction, ...]
    timings_ms: Mapping[str, float]
    batch_size: int
    members: tuple[Member, ...] = ()
    arm: str = ""  # of the experiment that was called
    energy: Energy | None = None


@dataclass(frozen=True)
class FileAnswer:
    """The answer about one file, or the error that it got instead."""

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
    """An answer that is not the protocol's."""
    return ConvoyError(f"the answer of {server} cannot be read: {error}")


def parse_classification(server: str, document: Document, energy: bool = False) -> Classification:
    """`energy`: whether it was asked for. Raises ConvoyError when the document is none of a classification."""
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
    return Prediction(tuple(Class(one["index"], one.get("label", ""), one["probability"]) for one in entry["classes"]))


def _energy(document: Document) -> Energy:
    return Energy(document.get("energy_mj"), document.get("energy_source", ""), document.get("energy_method", ""))


def parse_models(server: str, document: Document) -> list[ModelSummary]:
    """Raises ConvoyError when the document is no list of models."""
    try:
        return [ModelSummary(one["name"], one["version"], one["dataset"], one["classes"]) for one in document["models"]]
    except (KeyError, TypeError) as error:
        raise unreadable(server, error) from error
