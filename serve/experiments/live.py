"""An experiment in a gateway: assigns a request to an arm, runs the copies, and records what came of it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import Any

from convoy.errors import Cancelled, ConvoyError, InvalidInput, TooLarge
from serve.batcher import Answer
from serve.catalog import Endpoint, engine_work, waiting_rows
from serve.dataplane import DataPlane, ImageBytes, Terms, Watch
from serve.experiments.allocation import POINTS, point
from serve.experiments.caller import Caller, Work
from serve.experiments.ledger.records import Measure, Prediction, TallyKey
from serve.experiments.ledger.tables import latency_bucket
from serve.experiments.ledger.writer import LedgerWriter
from serve.experiments.revision import Revision
from serve.metric_pages import Values
from serve.metrics import ARM_COPIES, ARM_REQUESTS, Definition, Metrics
from serve.power.prices import Prices
from serve.timeline import Trace

COPIES = 64  # under way at a time in one experiment
LAST_PRIORITY = 2**31 - 1
CLIENTS_FAULT = (InvalidInput, TooLarge, Cancelled)


@dataclass(frozen=True)
class Assigned:
    """A request's arm; `unit` is 0 where the request is its own unit."""

    arm: str
    unit: int


class LiveExperiment:
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
        self._copies: set[asyncio.Task[None]] = set()
        self._counters: dict[tuple[str, str, str], Values] = {}

    def assign(self, caller: Caller) -> Assigned:
        """The arm of a caller. One without the sticky key counts as a unit of its own."""
        key = sticky_key(self.revision.definition.sticky, caller)
        arm = self.revision.allocation.arm(self.revision.salt, caller.id if key is None else key)
        return Assigned(arm, 0 if key is None else unit_of(self.revision.salt, key))

    async def serve(self, caller: Caller, terms: Terms, trace: Trace, watch: Watch, work: Work) -> list[Answer]:
        """Answers with the caller's arm. Raises ConvoyError as the arm does."""
        assigned = self.assign(caller)
        self._start_copies(caller, assigned, terms, work)
        return await self._run(caller, assigned, assigned.arm, terms, trace, watch, work)

    async def classify(
        self,
        plane: DataPlane,
        images: Sequence[ImageBytes],
        caller: Caller,
        terms: Terms,
        trace: Trace,
        watch: Watch,
    ) -> list[Answer]:
        """As `DataPlane.classify`, by the caller's arm."""

        async def work(endpoint: Endpoint, terms: Terms, trace: Trace, watch: Watch) -> list[Answer]:
            return await plane.classify(endpoint, images, terms, trace, watch)

        return await self.serve(caller, terms, trace, watch, work)

    async def _run(
        self, caller: Caller, assigned: Assigned, arm: str, terms: Terms, trace: Trace, watch: Watch, work: Work
    ) -> list[Answer]:
        revision = self.revision
        trace.experiment, trace.arm = revision.definition.name, arm
        try:
            answers = await work(self.arms[arm], terms, trace, watch)
        except CLIENTS_FAULT:
            raise
        except ConvoyError:
            self._tally(revision, arm, "failed", 1)
            self._count(ARM_REQUESTS, arm, "failed")
            raise
        seconds = time.monotonic() - trace.started
        record = partial(self._record, caller.id, assigned, arm, answers, seconds, trace.cached)
        asyncio.get_running_loop().call_soon(record)  # after the answer is on its way
        return answers

    def _record(
        self, identifier: str, assigned: Assigned, arm: str, answers: Sequence[Answer], seconds: float, cached: bool
    ) -> None:
        revision = self.revision
        self._tally(revision, arm, "failed", 0)
        self._tally(revision, arm, "latency", latency_bucket(seconds))
        now, position = time.time(), 0
        head = (revision.definition.name, identifier)
        tail = (revision.revision, revision.stage, assigned.unit, int(arm == assigned.arm))
        for answer in answers:
            best = answer.run.ranking
            for row in range(answer.start, answer.stop):
                guess, confidence = best.classes[row][0], best.probabilities[row][0]
                self._writer.predict(Prediction(*head, position, arm, *tail, int(guess), float(confidence), now))
                position += 1
        if not cached:
            self._record_cost(revision, arm, answers, position)
        self._count(ARM_REQUESTS, arm, "answered")

    def _record_cost(self, revision: Revision, arm: str, answers: Sequence[Answer], images: int) -> None:
        """Engine time per image and, where every engine has a price, its joules."""
        work = engine_work(self.arms[arm], answers)
        self._tally(revision, arm, "engine", 0, sum(seconds for _, seconds in work) / images, images)
        models = self._prices().models
        costs = [seconds * models[one.engine].joules_per_second for one, seconds in work if one.engine in models]
        if len(costs) == len(work):
            self._tally(revision, arm, "joules", 0, sum(costs) / images, images)

    def _start_copies(self, caller: Caller, assigned: Assigned, terms: Terms, work: Work) -> None:
        """Copies of a request for the other arms: bounded, last in every line, and none while an arm has a line."""
        revision = self.revision
        definition = revision.definition
        if not definition.paired or revision.state != "running":
            return
        # Which requests are copied is as much a function of their id as their arm, and independent of it.
        share = definition.percent / 100 if definition.mode == "shadow" else 1.0
        if point(f"{revision.salt}#copies"[:64], caller.id) >= share * POINTS:
            return
        for arm in definition.arms:
            if arm.name == assigned.arm:
                continue
            if len(self._copies) >= COPIES or waiting_rows(self.arms[arm.name]) > 0:
                self._tally(revision, arm.name, "dropped", 0)
                self._count(ARM_COPIES, arm.name, "dropped")
                continue
            copy = self._copy(caller, assigned, arm.name, Terms(terms.deadline, LAST_PRIORITY), work)
            task = asyncio.create_task(copy)
            self._copies.add(task)
            task.add_done_callback(self._copies.discard)
            self._count(ARM_COPIES, arm.name, "run")

    async def _copy(self, caller: Caller, assigned: Assigned, arm: str, terms: Terms, work: Work) -> None:
        with contextlib.suppress(ConvoyError):  # counted where it happened; nobody waits for a copy
            await self._run(caller, assigned, arm, terms, Trace(time.monotonic()), Watch(), work)

    def _tally(
        self, revision: Revision, arm: str, measure: Measure, bucket: int, value: float = 0.0, count: int = 1
    ) -> None:
        key = TallyKey(revision.definition.name, revision.revision, revision.stage, arm, measure, bucket)
        self._writer.tally(key, value, count)

    def _count(self, definition: Definition, arm: str, outcome: str) -> None:
        key = (definition.name, arm, outcome)
        if key not in self._counters:
            of_revision = {"experiment": self.revision.definition.name, "revision": str(self.revision.revision)}
            self._counters[key] = self._metrics.values(definition, **of_revision, arm=arm, outcome=outcome)
        self._counters[key][0] += 1


def sticky_key(sticky: str, caller: Caller) -> str | None:
    """The value that decides the arm; None where each request is its own unit or the caller names none."""
    kind, _, name = sticky.partition(":")
    if kind == "address":
        return caller.address
    if kind == "header":
        return caller.header(name)
    if kind == "field":
        value: Any = caller.fields.get(name)
        return None if value is None else str(value)
    return None


def unit_of(salt: str, key: str) -> int:
    """A sticky key in the ledger: a pseudonym of it, never 0. Who can guess keys can tell which one it is."""
    digest = blake2b(key.encode(), digest_size=8, key=salt.encode(), person=b"convoy unit").digest()
    return (int.from_bytes(digest, "big") >> 1) or 1
