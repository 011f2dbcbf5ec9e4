"""An experiment in a gateway: assigns requests to arms, runs copies, and records the outcomes."""

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
from serve.experiments.caller import checked_id
from serve.experiments.ledger.records import Answered, Place, Unanswered
from serve.experiments.revision import Revision
from serve.gateway.endpoints import Endpoint, Work
from serve.gateway.request_context import RequestContext
from serve.telemetry.definitions import ARM_COPIES, ARM_REQUESTS, Definition
from serve.telemetry.mmap_store import Values
from serve.telemetry.recorder import Metrics
from serve.telemetry.request_events import FIELDS

if TYPE_CHECKING:
    from serve.experiments.ledger.writer import LedgerWriter

log = logging.getLogger("convoy.experiments")

COPIES = 64  # in flight at the same time in an experiment
LAST_PRIORITY = 2**31 - 1
CLIENTS_FAULT = (InvalidInput, TooLarge, Cancelled)
# Errors of copies under load: the copy is dropped and does not count as a failure of the arm.
SHED = (Overloaded, DeadlineExceeded, NotReady)


class Assigned(NamedTuple):
    """A request's arm and unit of assignment; `unit` is 0 if the request is its own unit."""

    arm: str
    unit: int


class ExperimentRuntime:
    """One revision of an experiment, on one event loop. A new revision has a new runtime; requests in flight keep theirs."""

    def __init__(
        self,
        revision: Revision,
        arms: Mapping[str, Endpoint],
        writer: LedgerWriter,
        metrics: Metrics,
        prices: Callable[[], Prices],
    ) -> None:
        """`prices` returns the current energy prices of engine time on this node."""
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

    def assign(self, context: RequestContext) -> Assigned:
        """The arm of a request. A request without the sticky key is its own unit."""
        key = None if self._key_of is None else self._key_of(context)
        if key is None:
            return Assigned(self.revision.allocation.arm(self._salt, context.request_id), 0)
        return Assigned(self.revision.allocation.arm(self._salt, key), unit_of(self._salt, key))

    def serve(self, context: RequestContext, work: Work) -> Awaitable[list[Answer]]:
        """Answers with the arm that the request is assigned to. Raises the ConvoyError of the arm."""
        checked_id(context.request_id)
        assigned = self.assign(context)
        if self._copied:
            self._start_copies(context, assigned, work)
        return self._run(context, assigned, assigned.arm, work)

    async def _run(self, context: RequestContext, assigned: Assigned, arm: str, work: Work) -> list[Answer]:
        timings = context.timings
        timings.experiment, timings.arm = self.revision.definition.name, arm
        try:
            answers = await work(self.arms[arm], context)
        except CLIENTS_FAULT:
            raise
        except Exception as error:  # for any reason, this arm did not answer
            if arm == assigned.arm or not isinstance(error, SHED):
                self._writer.unanswered(Unanswered(self._places[arm], assigned.unit, "failed"))
                self._count(ARM_REQUESTS, arm, "failed")
            raise
        seconds, prices = time.monotonic() - timings.started, None if timings.cached else self._prices()
        record = partial(self._record, context.request_id, assigned, arm, answers, seconds, prices, time.time())
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
        """The ledger's record of an answer; `prices` is None for a cached one. Runs on the ledger's thread."""
        images = [best for answer in answers for best in best_classes(answer)]
        engine, joules = (None, None) if prices is None else cost(self.arms[arm], answers, prices)
        place, answered = self._places[arm], arm == assigned.arm
        return Answered(place, identifier, assigned.unit, answered, images, seconds, engine, joules, at)

    def _start_copies(self, context: RequestContext, assigned: Assigned, work: Work) -> None:
        """Copies a request to the other arms: at most COPIES, at the lowest priority, and only to arms with an empty queue."""
        revision = self.revision
        definition = revision.definition
        # A hash of the id with another salt: all gateways decide alike, and independently of the arm.
        share = definition.percent / 100 if definition.mode == "shadow" else 1.0
        if bucket(f"{revision.salt}#copies"[:64], context.request_id) >= share * BUCKETS:
            return
        for arm in definition.arms:
            if arm.name == assigned.arm or arm.name in revision.stopped:
                continue
            if len(self._copies) >= COPIES or self.arms[arm.name].waiting_rows > 0:
                self._drop(assigned, arm.name)
                continue
            copy = self._copy(context, assigned, arm.name, work)
            task = asyncio.create_task(copy)
            self._copies.add(task)
            task.add_done_callback(self._copies.discard)

    async def _copy(self, context: RequestContext, assigned: Assigned, arm: str, work: Work) -> None:
        try:
            await self._run(context.copy(LAST_PRIORITY), assigned, arm, work)
        except SHED:
            self._drop(assigned, arm)
            return
        except ConvoyError:  # `_run` has counted it, and no client waits for a copy
            pass
        except Exception:
            log.exception("a copy failed", extra={FIELDS: {"request_id": context.request_id, "model": arm}})
        self._count(ARM_COPIES, arm, "run")

    def _drop(self, assigned: Assigned, arm: str) -> None:
        self._writer.unanswered(Unanswered(self._places[arm], assigned.unit, "dropped"))
        self._count(ARM_COPIES, arm, "dropped")

    def _count(self, definition: Definition, arm: str, outcome: str) -> None:
        key = (definition.name, arm, outcome)
        if key not in self._counters:
            labels = {"experiment": self.revision.definition.name, "revision": str(self.revision.revision)}
            self._counters[key] = self._metrics.values(definition, **labels, arm=arm, outcome=outcome)
        self._counters[key][0] += 1


def cost(endpoint: Endpoint, answers: Sequence[Answer], prices: Prices) -> tuple[float, float | None]:
    """Engine seconds of answers and their joules; joules are None unless every engine has a price."""
    engine, joules = 0.0, 0.0
    for recorder, seconds in endpoint.engine_work(answers):
        engine += seconds
        price = prices.models.get(recorder.engine)
        joules = math.nan if price is None else joules + price.joules_per_second * seconds
    return engine, None if math.isnan(joules) else joules


def best_classes(answer: Answer) -> Iterator[tuple[int, float]]:
    """The best class of each image and its probability."""
    ranking = answer.run.ranking
    for row in range(answer.start, answer.stop):
        yield ranking.classes[row][0], ranking.probabilities[row][0]


def key_reader(sticky: str) -> Callable[[RequestContext], str | None] | None:
    """The function that reads the value that decides the arm (None if a request lacks it). None: each request is its own unit."""
    kind, _, name = sticky.partition(":")

    def field(context: RequestContext) -> str | None:
        value: Any = context.fields.get(name)
        if isinstance(value, list | dict):
            raise InvalidInput(
                f"{name} is {shown(value)}; this experiment assigns by it, so it must be text or a number"
            )
        return None if value is None else str(value)

    if kind == "field":
        return field
    if kind == "header":
        return lambda context: context.caller.header(name)
    return (lambda context: context.caller.address) if kind == "address" else None


def unit_of(salt: str, key: str) -> int:
    """The pseudonym of a sticky key in the ledger, never 0. It protects only keys that cannot be guessed."""
    digest = blake2b(key.encode(), digest_size=8, key=salt.encode(), person=b"convoy unit").digest()
    return (int.from_bytes(digest, "big") >> 1) or 1
