"""Revisions of the served catalog. Each change has a number and is in effect once every live gateway serves it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from convoy.errors import NotReady

FOLLOW_SECONDS = 5.0  # how long `follow` waits for a newer revision
GONE_SECONDS = 2.0  # a gateway that has not called `follow` for this time counts as dead
CHANGE_SECONDS = 60.0  # a large engine takes long to load
NONE = -1  # older than every revision, so that `follow` returns at once


@dataclass(frozen=True)
class Revision:
    """The models of the catalog that are unloaded. The revision with the highest number is valid."""

    number: int = 0
    unloaded: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Report:
    """How far a gateway has applied a revision: models that are still changing, and the errors of failed ones."""

    number: int = NONE
    pending: frozenset[str] = frozenset()
    problems: Mapping[str, str] = field(default_factory=dict)

    def has_settled(self, model: str, number: int) -> bool:
        """Whether the revision `number` is in effect for a model, or has failed."""
        return self.number >= number and model not in self.pending


@dataclass(frozen=True)
class Change:
    """The outcome of a change: its revision, and the errors of the gateways that could not load the model."""

    revision: Revision
    problems: Mapping[str, str]
    gateways: int


@dataclass
class Follower:
    """A gateway: its last report, and when it last called, in seconds of the clock."""

    report: Report
    heard: float
    asking: bool = True


@dataclass
class Revisions:
    """The current revision and the gateways that follow it. Lives on one event loop."""

    clock: Callable[[], float] = time.monotonic
    current: Revision = field(default_factory=Revision)
    _followers: dict[str, Follower] = field(default_factory=dict)
    _moved: asyncio.Event = field(default_factory=asyncio.Event)  # set and replaced at every change

    async def set_loaded(self, model: str, loaded: bool, known: Revision) -> Change:
        """Loads or unloads a model. Returns when every gateway has done so or has failed.

        Does not wait for other models. Raises NotReady when a gateway has not settled within CHANGE_SECONDS.
        """
        self._adopt(known)
        unloaded = self.current.unloaded - {model} if loaded else self.current.unloaded | {model}
        revision = self.current = Revision(self.current.number + 1, unloaded)
        self._notify()
        deadline = self.clock() + CHANGE_SECONDS
        while not self._all_have_settled(model, revision.number):
            if self.clock() > deadline:
                raise NotReady(f"not every gateway took revision {revision.number} in {CHANGE_SECONDS:.0f} s")
            with contextlib.suppress(TimeoutError):  # then a gateway may have died
                async with asyncio.timeout(GONE_SECONDS):
                    await self._moved.wait()
        reports = {name: follower.report for name, follower in self._followers.items()}
        problems = {name: report.problems[model] for name, report in reports.items() if model in report.problems}
        return Change(revision, problems, len(reports))

    async def follow(
        self, follower: str, known: Revision, report: Report, patience: float = FOLLOW_SECONDS
    ) -> Revision:
        """The first revision after `known` as soon as it exists, or the current one after `patience` seconds.

        `report`: how far the follower has applied `known`.
        """
        self._adopt(known)
        entry = self._followers[follower] = Follower(report, self.clock())
        self._notify()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    while self.current.number <= known.number:
                        await self._moved.wait()
        finally:
            entry.asking, entry.heard = False, self.clock()
        return self.current

    async def report(self, follower: str, report: Report) -> None:
        """Stores the new report of a follower."""
        if follower in self._followers:
            self._followers[follower].report = report
            self._notify()

    def _notify(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()

    def _adopt(self, known: Revision) -> None:
        if known.number > self.current.number:
            self.current = known

    def _all_have_settled(self, model: str, number: int) -> bool:
        late = self.clock() - GONE_SECONDS
        dead = [name for name, follower in self._followers.items() if not follower.asking and follower.heard < late]
        for name in dead:
            del self._followers[name]
        return all(follower.report.has_settled(model, number) for follower in self._followers.values())
