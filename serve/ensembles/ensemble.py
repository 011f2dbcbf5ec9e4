"""An ensemble at work: its members answer at the same time, and what has come by the deadline is combined."""

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

INLINE_VALUES = 100_000  # logits; combining more of them would hold up the event loop for a millisecond


@dataclass(frozen=True)
class Member:
    """A model in an ensemble: its line, the looks it takes (by position among the geometries), how many, how it counts."""

    model: str
    version: str
    line: MemberQueue
    geometry: int
    weight: float = 1.0
    temperature: float = 1.0
    looks: int = 1


@dataclass(frozen=True)
class Poll:
    """What came of asking: combined scores [images, classes], or the error because of which there are none."""

    scores: Scores | ConvoyError
    parts: tuple[MemberResult, ...]
    started: float
    asked: tuple[tuple[str, int], ...] = ()  # images by stage, of a cascade


@dataclass(frozen=True)
class _Ballot:
    """A member's votes, [looks, images, classes], and when its first run began."""

    part: MemberResult
    votes: Scores | None = None
    started: float = 0.0
    error: ConvoyError | None = None


@dataclass(eq=False)
class _Pending:
    """What a member was asked for one request: an item of its queue for each future that is not done."""

    member: Member
    futures: list[asyncio.Future[Answer]] = field(default_factory=list)


class Ensemble:
    """Members whose answers are combined. `deadline` is in seconds from the question."""

    def __init__(
        self,
        members: Sequence[Member],
        rule: Rule = "mean_probability",
        min_members: int = 1,
        deadline: float = float("inf"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.members = tuple(members)
        self._rule = rule
        self._min_members = min_members
        self._deadline = deadline
        self._clock = clock
        self._pending: set[_Pending] = set()

    @property
    def waiting_rows(self) -> int:
        """Rows in the members' queues that wait because of this ensemble: images x views of each member."""
        return sum(
            member.line.waiting_rows_of(
                {future for one in self._pending if one.member is member for future in one.futures}
            )
            for member in self.members
        )

    def admit(self, images: int, deadline: float, priority: int = 0, ready_in: float = 0.0) -> None:
        """Raises what a member raises where fewer would take so many images than are needed. As `Batcher.admit`."""
        until = min(deadline, self._clock() + self._deadline)
        refusals: list[ConvoyError] = []
        for member in self.members:
            try:
                member.line.admit(images * member.looks, until, priority, ready_in)
            except ConvoyError as error:
                refusals.append(error)
        self._check_enough(refusals)

    def _check_enough(self, refusals: Sequence[ConvoyError]) -> None:
        if len(self.members) - len(refusals) < self._min_members:
            raise refusals[0]

    @contextmanager
    def arrival(self, images: int, deadline: float, priority: int = 0, ready_in: float = 0.0) -> Iterator[None]:
        """Admits images whose looks are still being made: for that time they count in the lines of those who take them.

        Arguments as of `Batcher.admit`. Raises what a member raises where fewer would take them than are needed.
        """
        until = min(deadline, self._clock() + self._deadline)
        refusals: list[ConvoyError] = []
        with ExitStack() as stack:
            for member in self.members:
                try:
                    stack.enter_context(member.line.arrival(images * member.looks, until, priority, ready_in))
                except ConvoyError as error:
                    refusals.append(error)
            self._check_enough(refusals)
            yield

    async def poll(self, looks: Views, deadline: float, priority: int = 0) -> Poll:
        """Asks every member; `deadline` in monotonic seconds. Members that are late or fail are left out, and told."""
        begun = self._clock()
        until = min(deadline, begun + self._deadline)
        tasks = [asyncio.create_task(self._ask(member, looks, until, priority)) for member in self.members]
        try:
            await asyncio.wait(tasks, timeout=max(0.0, until - begun))
            ballots = [
                task.result() if task.done() else self._late(member, len(looks), begun)
                for task, member in zip(tasks, self.members, strict=True)
            ]
        finally:
            for task in tasks:
                task.cancel()
        parts = tuple(ballot.part for ballot in ballots)
        counted = [
            (one.votes, member) for one, member in zip(ballots, self.members, strict=True) if one.votes is not None
        ]
        started = min((ballot.started for ballot in ballots if ballot.votes is not None), default=begun)
        if len(counted) < self._min_members:
            return Poll(self._too_few(ballots, len(counted)), parts, started)
        votes = np.concatenate([votes for votes, _ in counted])
        weights = np.concatenate([np.full(len(votes), member.weight / len(votes)) for votes, member in counted])
        if votes.size <= INLINE_VALUES:
            scores = combine(votes, weights, self._rule)
        else:
            scores = await asyncio.to_thread(combine, votes, weights, self._rule)
        if not all_have_distribution(scores):  # members that rule out all classes among them, or an overflow
            return Poll(EngineFailed("the members' answers combine to NaN or infinity"), parts, started)
        return Poll(scores, parts, started)

    async def _ask(self, member: Member, looks: Views, until: float, priority: int) -> _Ballot:
        rows = looks.rows[member.geometry]
        begun = self._clock()
        pending = _Pending(member)
        self._pending.add(pending)
        try:
            member.line.admit(rows.shape[0] * rows.shape[1], until, priority, decoded=True)
            answers = await run_in_parts(
                member.line, rows.reshape(-1, *rows.shape[2:]), until, priority, pending.futures
            )
        except ConvoyError as error:
            outcome: Outcome = "late" if isinstance(error, DeadlineExceeded) else "failed"
            seconds = self._clock() - begun
            return _Ballot(
                MemberResult(member.model, member.version, len(rows), outcome, seconds, reason=str(error)), error=error
            )
        finally:
            self._pending.remove(pending)
        logits = np.concatenate([answer.logits for answer in answers])
        if member.temperature != 1.0:
            logits = logits / np.float32(member.temperature)
        votes = logits.reshape(*rows.shape[:2], -1).transpose(1, 0, 2)
        seconds, engine_seconds = self._clock() - begun, sum(answer.engine_seconds for answer in answers)
        part = MemberResult(member.model, member.version, len(rows), "answered", seconds, engine_seconds)
        return _Ballot(part, votes, min(answer.run.started for answer in answers))

    def _late(self, member: Member, images: int, begun: float) -> _Ballot:
        seconds = self._clock() - begun
        error = DeadlineExceeded(f"no answer within {seconds * 1000:.0f} ms")
        return _Ballot(
            MemberResult(member.model, member.version, images, "late", seconds, reason=str(error)), error=error
        )

    def _too_few(self, ballots: Sequence[_Ballot], answered: int) -> ConvoyError:
        lost = [(ballot.part.model, ballot.error) for ballot in ballots if ballot.error is not None]
        model, error = lost[0]
        return type(error)(
            f"{answered} of {len(ballots)} members answered, {self._min_members} needed; {model}: {error}"
        )
