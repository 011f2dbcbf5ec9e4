"""Events that the request path passes to the ledger, and the rows made from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

Measure = Literal["latency", "failed", "engine", "joules", "dropped"]


class Place(NamedTuple):
    """The experiment, revision, stage and arm that an event belongs to."""

    experiment: str
    revision: int
    stage: int
    arm: str


class Answered(NamedTuple):
    """A request that an arm answered. `joules` is None without an energy price."""

    place: Place
    request_id: str
    unit: int
    answered: bool  # to the client; False: a copy
    images: Sequence[tuple[int, float]]  # best class, its probability
    seconds: float
    engine_seconds: float | None  # None: the cache answered
    joules: float | None
    at: float  # Unix time


class Unanswered(NamedTuple):
    """A request that failed in an arm, or a copy for the arm that was dropped."""

    place: Place
    unit: int
    measure: Literal["failed", "dropped"]


class Prediction(NamedTuple):
    """The answer of one arm for one image; the fields are the columns of the ledger, in their order."""

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
    """The label or reward of one image; the fields are the columns of the ledger, in their order."""

    request_id: str
    position: int
    class_index: int | None
    reward: float | None
    at: float


class CounterKey(NamedTuple):
    """The key of a counter; `bucket` is a latency bucket, or 1 for a failure and 0 for an answer.

    `cluster`: 0 for requests that are their own units. Otherwise all of its requests count as one unit, since they may
    share sticky keys: a group of keys, or -1 for counts from before there were clusters.
    """

    experiment: str
    revision: int
    stage: int
    arm: str
    measure: Measure
    bucket: int
    cluster: int


class Moments(NamedTuple):
    """Sums over requests, each with n observations (its images, or the request itself) of sum x."""

    requests: int = 0
    count: int = 0  # type: ignore[assignment]  # n; hides a tuple method that is not used here
    total: float = 0.0  # x
    count_squares: float = 0.0  # n²
    products: float = 0.0  # n·x
    squares: float = 0.0  # x²

    def plus(self, other: Moments) -> Moments:
        """The sums over the requests of both."""
        requests, count, *sums = (own + added for own, added in zip(self, other, strict=True))
        return Moments(int(requests), int(count), *sums)


class Decision(NamedTuple):
    """A change of an experiment, with its evidence (JSON); the fields are the columns of the ledger, in their order."""

    id: str
    experiment: str
    revision: int
    at: float
    action: str
    arm: str
    actor: str
    reason: str
    evidence: str
