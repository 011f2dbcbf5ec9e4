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
    """A request that an arm answered. `joules` are None where nothing has a price."""

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
    unit: int
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


class CounterKey(NamedTuple):
    """What a tally counts; `bucket` is that of a latency, or 1 for a failure and 0 for an answer.

    `cluster`: 0 for requests that are units of their own; else everything in it counts as one unit, since its requests may
    share their keys: a group of keys, or -1, what was counted before there were clusters.
    """

    experiment: str
    revision: int
    stage: int
    arm: str
    measure: Measure
    bucket: int
    cluster: int


class Moments(NamedTuple):
    """Sums over requests, each with n observations (its images, or the request itself) that add up to x."""

    requests: int = 0
    count: int = 0  # type: ignore[assignment]  # n; hides a method of tuples that nobody needs
    total: float = 0.0  # x
    count_squares: float = 0.0  # n²
    products: float = 0.0  # n·x
    squares: float = 0.0  # x²

    def plus(self, other: Moments) -> Moments:
        requests, count, *sums = (one + more for one, more in zip(self, other, strict=True))
        return Moments(int(requests), int(count), *sums)


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
