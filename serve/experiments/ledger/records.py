"""What crosses from the request path to the ledger."""

from __future__ import annotations

from typing import Literal, NamedTuple

Measure = Literal["latency", "failed", "engine", "joules", "dropped"]


class Prediction(NamedTuple):
    """One image's answer of one arm; fields are columns of the ledger."""

    experiment: str
    request_id: str
    position: int
    arm: str
    revision: int
    stage: int
    unit: int
    answered: int
    class_index: int
    confidence: float
    at: float  # Unix time


class Outcome(NamedTuple):
    """What was true of one image."""

    request_id: str
    position: int
    class_index: int | None
    reward: float | None
    at: float


class TallyKey(NamedTuple):
    """What a tally counts; `bucket` is that of a latency, or 1 for a failure and 0 for an answer."""

    experiment: str
    revision: int
    stage: int
    arm: str
    measure: Measure
    bucket: int


class Decision(NamedTuple):
    """A change of an experiment, with what it rests on (JSON)."""

    id: str
    experiment: str
    revision: int
    at: float
    action: str
    arm: str
    actor: str
    reason: str
    evidence: str
