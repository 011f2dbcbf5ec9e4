"""An ensemble: its members run at the same time, and the answers that arrive before the deadline are combined."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import numpy as np

from convoy.errors import ConvoyError, DeadlineExceeded, EngineFailed
from models.engines.logits import all_have_distribution
from models.ensembles.combine import Rule, Scores, combine
from serve.batching.line import MemberQueue, run_in_parts
from serve.batching.member_report import MemberResult, Outcome
from serve.batching.results import Answer
from serve.ensembles.multi_view import Views

INLINE_VALUES = 100_000  # logits; combining more of them would block the event loop for a millisecond


@dataclass(frozen=True)
class Member:
    """A model of an ensemble: its queue, its views (position among the geometries, rows per image) and its weight.

    `temperature` divides its logits before they are combined (Guo et al. 2017, temperature scaling).
    """

    model: str
    version: str
    queue: MemberQueue
    geometry: int
    weight: float = 1.0
    temperature: float = 1.0
    view_count: int = 1


@dataclass(frozen=True)
class EnsembleResult:
    """Combined scores [images, classes], or the error of the request.

    `started`: monotonic time of the first run that contributed. `images_by_stage`: of a cascade only.
    """

    scores: Scores | ConvoyError
    members: tuple[MemberResult, ...]
    started: float
    images_by_stage: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class _MemberAnswer:
    """A member's logits [views, images, classes], and the start of its first run; or its error."""

    result: MemberResult
    logits: Scores | None = None
    started: float = 0.0
    error: ConvoyError | None = None


@dataclass(eq=False)
class _Pending:
    """The queue items of one member for one request, by their futures."""

    member: Member
    futures: list[asyncio.Future[Answer]] = field(default_factory=list)


class Ensemble:
    """Members whose logits are combined. Lives on one event loop."""

    def __init__(
        self,
        members: Sequence[Member],
        rule: Rule = "mean_probability",
        min_members: int = 1,
        deadline: float = float("inf"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`deadline`: seconds from the start of `run`. `min_members`: fewer answers fail the request."""
        self.members = tuple(members)
        self._rule = rule
        self._min_members = min_members
        self._deadline = deadline
        self._clock = clock
        self._pending: set[_Pending] = set()

    @property
    def waiting_rows(self) -> int:
        """Rows of this ensemble in the members' queues: images times views of each member."""
        return sum(
            member.queue.waiting_rows_of(
                {future for pending in self._pending if pending.member is member for future in pending.futures}
            )
            for member in self.members
        )

    def admit(self, images: int, deadline: float, priority: int = 0, ready_in: float = 0.0) -> None:
        """Arguments as of `Batcher.admit`. Raises a member's error when fewer than `min_members` would take the images."""
        until = min(deadline, self._clock() + self._deadline)
        refusals: list[ConvoyError] = []
        for member in self.members:
            try:
                member.queue.admit(images * member.view_count, until, priority, ready_in)
            except ConvoyError as error:
                refusals.append(error)
        self._check_enough(refusals)

    def _check_enough(self, refusals: Sequence[ConvoyError]) -> None:
        if len(self.members) - len(refusals) < self._min_members:
            raise refusals[0]

    @contextmanager
    def arrival(self, images: int, deadline: float, priority: int = 0, ready_in: float = 0.0) -> Iterator[None]:
        """Admits images that are still being decoded; until then they count in the queues of the members that admit them.

        Arguments as of `Batcher.admit`. Raises a member's error when fewer than `min_members` would take the images.
        """
        until = min(deadline, self._clock() + self._deadline)
        refusals: list[ConvoyError] = []
        with ExitStack() as stack:
            for member in self.members:
                try:
                    rows = images * member.view_count
                    stack.enter_context(member.queue.arrival(rows, until, priority, ready_in))
                except ConvoyError as error:
                    refusals.append(error)
            self._check_enough(refusals)
            yield

    async def run(self, views: Views, deadline: float, priority: int = 0) -> EnsembleResult:
        """Runs all members; `deadline` in monotonic seconds. Late and failed members are left out, and reported."""
        begun = self._clock()
        until = min(deadline, begun + self._deadline)
        tasks = [asyncio.create_task(self._run_member(member, views, until, priority)) for member in self.members]
        try:
            await asyncio.wait(tasks, timeout=max(0.0, until - begun))
            answers = [
                task.result() if task.done() else self._late(member, len(views), begun)
                for task, member in zip(tasks, self.members, strict=True)
            ]
        finally:
            for task in tasks:
                task.cancel()
        results = tuple(answer.result for answer in answers)
        counted = [
            (answer.logits, member)
            for answer, member in zip(answers, self.members, strict=True)
            if answer.logits is not None
        ]
        started = min((answer.started for answer in answers if answer.logits is not None), default=begun)
        if len(counted) < self._min_members:
            return EnsembleResult(self._too_few(answers, len(counted)), results, started)
        logits = np.concatenate([logits for logits, _ in counted])
        # The views of a member share its weight.
        weights = np.concatenate([np.full(len(logits), member.weight / len(logits)) for logits, member in counted])
        if logits.size <= INLINE_VALUES:
            scores = combine(logits, weights, self._rule)
        else:
            scores = await asyncio.to_thread(combine, logits, weights, self._rule)
        if not all_have_distribution(scores):  # every class has probability 0 in some member, or the sum overflows
            return EnsembleResult(EngineFailed("the members' answers combine to NaN or infinity"), results, started)
        return EnsembleResult(scores, results, started)

    async def _run_member(self, member: Member, views: Views, until: float, priority: int) -> _MemberAnswer:
        rows = views.rows[member.geometry]
        begun = self._clock()
        pending = _Pending(member)
        self._pending.add(pending)
        try:
            member.queue.admit(rows.shape[0] * rows.shape[1], until, priority, decoded=True)
            flat = rows.reshape(-1, *rows.shape[2:])
            answers = await run_in_parts(member.queue, flat, until, priority, pending.futures)
        except ConvoyError as error:
            outcome: Outcome = "late" if isinstance(error, DeadlineExceeded) else "failed"
            return self._missing(member, len(rows), outcome, self._clock() - begun, error)
        finally:
            self._pending.remove(pending)
        logits = np.concatenate([answer.logits for answer in answers])
        if member.temperature != 1.0:
            logits = logits / np.float32(member.temperature)
        by_view = logits.reshape(*rows.shape[:2], -1).transpose(1, 0, 2)
        seconds, engine_seconds = self._clock() - begun, sum(answer.engine_seconds for answer in answers)
        result = MemberResult(member.model, member.version, len(rows), "answered", seconds, engine_seconds)
        return _MemberAnswer(result, by_view, min(answer.run.started for answer in answers))

    def _late(self, member: Member, images: int, begun: float) -> _MemberAnswer:
        seconds = self._clock() - begun
        error = DeadlineExceeded(f"no answer within {seconds * 1000:.0f} ms")
        return self._missing(member, images, "late", seconds, error)

    @staticmethod
    def _missing(member: Member, images: int, outcome: Outcome, seconds: float, error: ConvoyError) -> _MemberAnswer:
        result = MemberResult(member.model, member.version, images, outcome, seconds, reason=str(error))
        return _MemberAnswer(result, error=error)

    def _too_few(self, answers: Sequence[_MemberAnswer], answered: int) -> ConvoyError:
        failures = [(answer.result.model, answer.error) for answer in answers if answer.error is not None]
        model, error = failures[0]
        return type(error)(
            f"{answered} of {len(answers)} members answered, {self._min_members} needed; {model}: {error}"
        )
