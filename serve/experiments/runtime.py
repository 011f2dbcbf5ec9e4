"""An experiment in a gateway: assigns a request to an arm, runs the copies, and records what came of it."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

from convoy.errors import (
    Cancelled,
    ConvoyError,
    DeadlineExceeded,
    InvalidInput,
    NotReady,
    Overloaded,
    TooLarge,
    shown,
)
from serve.batching.results import Answer
from serve.energy.prices import Prices
from serve.experiments.allocation import BUCKETS, bucket
from serve.experiments.caller import Caller, Work
from serve.experiments.ledger.records import Answered, Place, Unanswered
from serve.experiments.revision import Revision
from serve.gateway.dataplane import DataPlane, ImageBytes, Terms, Watch
from serve.gateway.endpoints import Endpoint, engine_work, waiting_rows
from serve.telemetry.definitions import ARM_COPIES, ARM_REQUESTS, Definition
from serve.telemetry.mmap_store import Values
from serve.telemetry.recorder import Metrics
from serve.telemetry.request_events import FIELDS
from serve.telemetry.request_timings import RequestTimings

if TYPE_CHECKING:
    from serve.experiments.ledger.writer import LedgerWriter

log = logging.getLogger("convoy.experiments")

COPIES = 64  # under way at a time in one experiment
LAST_PRIORITY = 2**31 - 1
CLIENTS_FAULT = (InvalidInput, TooLarge, Cancelled)
SHED = (Overloaded, DeadlineExceeded, NotReady)  # what becomes of a copy under load, whatever its arm is like


class Assigned(NamedTuple):
    """A request's arm; `unit` is 0 where the request is its own unit."""

    arm: str
    unit: int


class ExperimentRuntime:
    """Lives on one event loop. The revision is replaced as a whole; requests under way keep theirs."""

    def __init__(
        self,
        revision: Revision,
        arms: Mapping[str, Endpoint],
        writer: LedgerWriter,
        metrics: Metrics,
        prices: Callable[[], Prices],
    ) -> None:
        """`prices`: what engine time costs on this node now."""
        self.revision = revision
        self.arms = arms
        self._writer = writer
        self._metrics = metrics
        self._prices = prices
        definition = revision.definition
        self._salt = revision.salt
        self._key_of = key_reader(definition.sticky)
        self._copied = definition.paired and revision.state == "running"
        self._places = {
            arm.name: Place(definition.name, revision.revision, revision.stage, arm.name) for arm in definition.arms
        }
        self._copies: set[asyncio.Task[None]] = set()
        self._counters: dict[tuple[str, str, str], Values] = {}

    def assign(self, caller: Caller) -> Assigned:
        """The arm of a caller. One without the sticky key counts as a unit of its own."""
        key = None if self._key_of is None else self._key_of(caller)
        if key is None:
            return Assigned(self.revision.allocation.arm(self._salt, caller.id), 0)
        return Assigned(self.revision.allocation.arm(self._salt, key), unit_of(self._salt, key))

    def serve(
        self, caller: Caller, terms: Terms, trace: RequestTimings, watch: Watch, work: Work
    ) -> Awaitable[list[Answer]]:
        """Answers with the caller's arm. Raises ConvoyError as the arm does."""
        assigned = self.assign(caller)
        if self._copied:
            self._start_copies(caller, assigned, terms, work)
        return self._run(caller, assigned, assigned.arm, terms, trace, watch, work)

    def classify(
        self,
        plane: DataPlane,
        images: Sequence[ImageBytes],
        caller: Caller,
        terms: Terms,
        trace: RequestTimings,
        watch: Watch,
    ) -> Awaitable[list[Answer]]:
        """As `DataPlane.classify`, by the caller's arm."""
        return self.serve(caller, terms, trace, watch, partial(plane.classify, images=images))

    async def _run(
        self,
        caller: Caller,
        assigned: Assigned,
        arm: str,
        terms: Terms,
        trace: RequestTimings,
        watch: Watch,
        work: Work,
    ) -> list[Answer]:
        trace.experiment, trace.arm = self.revision.definition.name, arm
        try:
            answers = await work(self.arms[arm], terms=terms, trace=trace, watch=watch)
        except CLIENTS_FAULT:
            raise
        except Exception as error:  # whatever it is, this arm did not answer
            if arm == assigned.arm or not isinstance(error, SHED):
                self._writer.unanswered(Unanswered(self._places[arm], assigned.unit, "failed"))
                self._count(ARM_REQUESTS, arm, "failed")
            raise
        seconds, prices = time.monotonic() - trace.started, None if trace.cached else self._prices()
        record = partial(self._record, caller.id, assigned, arm, answers, seconds, prices, time.time())
        self._writer.later(sum([answer.stop - answer.start for answer in answers]), record)
        self._count(ARM_REQUESTS, arm, "answered")
        return answers

    def _record(
        self,
        identifier: str,
        assigned: Assigned,
        arm: str,
        answers: Sequence[Answer],
        seconds: float,
        prices: Prices | None,
        at: float,
    ) -> Answered:
        """What came of a request. Without `prices` the cache answered. Runs on the ledger's thread."""
        images = [best for answer in answers for best in best_classes(answer)]
        engine, joules = (None, None) if prices is None else cost(self.arms[arm], answers, prices)
        place, answered = self._places[arm], arm == assigned.arm
        return Answered(place, identifier, assigned.unit, answered, images, seconds, engine, joules, at)

    def _start_copies(self, caller: Caller, assigned: Assigned, terms: Terms, work: Work) -> None:
        """Copies of a request for the other arms: bounded, last in every line, and none while an arm has a line."""
        revision = self.revision
        definition = revision.definition
        # Which requests are copied is as much a function of their id as their arm, and independent of it.
        share = definition.percent / 100 if definition.mode == "shadow" else 1.0
        if bucket(f"{revision.salt}#copies"[:64], caller.id) >= share * BUCKETS:
            return
        for arm in definition.arms:
            if arm.name == assigned.arm or arm.name in revision.stopped:
                continue
            if len(self._copies) >= COPIES or waiting_rows(self.arms[arm.name]) > 0:
                self._drop(assigned, arm.name)
                continue
            copy = self._copy(caller, assigned, arm.name, Terms(terms.deadline, LAST_PRIORITY), work)
            task = asyncio.create_task(copy)
            self._copies.add(task)
            task.add_done_callback(self._copies.discard)

    async def _copy(self, caller: Caller, assigned: Assigned, arm: str, terms: Terms, work: Work) -> None:
        try:
            await self._run(caller, assigned, arm, terms, RequestTimings(time.monotonic()), Watch(), work)
        except SHED:
            self._drop(assigned, arm)
            return
        except ConvoyError:  # counted where it happened; nobody waits for a copy
            pass
        except Exception:
            log.exception("a copy failed", extra={FIELDS: {"request_id": caller.id, "model": arm}})
        self._count(ARM_COPIES, arm, "run")

    def _drop(self, assigned: Assigned, arm: str) -> None:
        self._writer.unanswered(Unanswered(self._places[arm], assigned.unit, "dropped"))
        self._count(ARM_COPIES, arm, "dropped")

    def _count(self, definition: Definition, arm: str, outcome: str) -> None:
        key = (definition.name, arm, outcome)
        if key not in self._counters:
            of_revision = {"experiment": self.revision.definition.name, "revision": str(self.revision.revision)}
            self._counters[key] = self._metrics.values(definition, **of_revision, arm=arm, outcome=outcome)
        self._counters[key][0] += 1


def cost(endpoint: Endpoint, answers: Sequence[Answer], prices: Prices) -> tuple[float, float | None]:
    """Engine time of answers and, where every engine has a price, its joules."""
    engine, joules = 0.0, 0.0
    for one, seconds in engine_work(endpoint, answers):
        engine += seconds
        price = prices.models.get(one.engine)
        joules = math.nan if price is None else joules + price.joules_per_second * seconds
    return engine, None if math.isnan(joules) else joules


def best_classes(answer: Answer) -> Iterator[tuple[int, float]]:
    """Of each image the best class and its probability."""
    best = answer.run.ranking
    for row in range(answer.start, answer.stop):
        yield best.classes[row][0], best.probabilities[row][0]


def key_reader(sticky: str) -> Callable[[Caller], str | None] | None:
    """What reads the value that decides the arm, None where the caller names none; nothing where each request is a unit."""
    kind, _, name = sticky.partition(":")

    def field(caller: Caller) -> str | None:
        value: Any = caller.fields.get(name)
        if isinstance(value, list | dict):
            raise InvalidInput(
                f"{name} is {shown(value)}; this experiment assigns by it, so it must be text or a number"
            )
        return None if value is None else str(value)

    if kind == "field":
        return field
    if kind == "header":
        return lambda caller: caller.header(name)
    return (lambda caller: caller.address) if kind == "address" else None


def unit_of(salt: str, key: str) -> int:
    """A sticky key in the ledger: a pseudonym of it, never 0. Who can guess keys can tell which one it is."""
    digest = blake2b(key.encode(), digest_size=8, key=salt.encode(), person=b"convoy unit").digest()
    return (int.from_bytes(digest, "big") >> 1) or 1
