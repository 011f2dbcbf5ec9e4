"""What crosses from the request path to the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

Measure = Literal["latency", "failed", "engine", "joules", "dropped"]


class Place(NamedTuple):
    """What an event counts for."""

    experiment: str
    revision: int
    stage: int
    arm: str


class Answered(NamedTuple):
    """A request that an arm answered, as the request path hands it over. `joules` are None where nothing has a price."""

    place: Place
    request_id: str
    unit: int
    answered: bool  # by this arm; else it is a copy
    images: Sequence[tuple[int, float]]  # best class and its probability
    seconds: float
    engine_seconds: float | None  # None: the cache answered
    joules: float | None
    at: float  # Unix time


class Unanswered(NamedTuple):
    """A request that an arm failed, or a copy for it that was dropped."""

    place: Place
    measure: Literal["failed", "dropped"]


class Prediction(NamedTuple):
    """One image's answer of one arm; fields are the columns of the ledger, in their order."""

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
    """What was true of one image; fields are the columns of the ledger, in their order."""

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
    """A change of an experiment, with what it rests on (JSON); fields are the columns of the ledger, in their order."""

    id: str
    experiment: str
    revision: int
    at: float
    action: str
    arm: str
    actor: str
    reason: str
    evidence: str
