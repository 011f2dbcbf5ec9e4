"""Revisions of the served catalog: each change is numbered, and in effect once every live gateway serves it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from convoy.errors import NotReady

FOLLOW_SECONDS = 5.0  # how long a gateway's question may stay open


GONE_SECONDS = 2.0  # a gateway that asks nothing for so long, and owes nothing, has gone


CHANGE_SECONDS = 60.0  # a large engine takes long to load


NONE = -1  # older than every revision, so that the steward answers at once


@dataclass(frozen=True)
class Revision:
    """Which models of the catalog are out of service. Of two, the one with the higher number is the truth."""

    number: int = 0
    unloaded: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Report:
    """What a gateway has made of a revision: the models that are still changing, and why others could not be loaded."""

    number: int = NONE
    pending: frozenset[str] = frozenset()
    problems: Mapping[str, str] = field(default_factory=dict)

    def has_settled(self, model: str, number: int) -> bool:
        """Whether the revision `number` is in effect for a model, or has failed."""
        return self.number >= number and model not in self.pending


@dataclass(frozen=True)
class Change:
    """What came of a change: its revision, and by gateway why the model could not be loaded there."""

    revision: Revision
    problems: Mapping[str, str]
    gateways: int


@dataclass
class Follower:
    """A gateway: what it made of the revisions, and when it was last heard of."""

    report: Report
    heard: float
    asking: bool = True


@dataclass
class Revisions:
    """The present revision and who follows it. Lives on one event loop."""

    clock: Callable[[], float] = time.monotonic
    current: Revision = field(default_factory=Revision)
    _followers: dict[str, Follower] = field(default_factory=dict)
    _moved: asyncio.Event = field(default_factory=asyncio.Event)  # set, and replaced, whenever anything changes

    async def set_loaded(self, model: str, loaded: bool, known: Revision) -> Change:
        """Puts a model in or out of service; returns when every gateway has done so, or could not.

        No other model is waited for. Raises NotReady when a gateway does neither in time.
        """
        self._adopt(known)
        unloaded = self.current.unloaded - {model} if loaded else self.current.unloaded | {model}
        revision = self.current = Revision(self.current.number + 1, unloaded)
        self._tell()
        deadline = self.clock() + CHANGE_SECONDS
        while not self._all_have_settled(model, revision.number):
            if self.clock() > deadline:
                raise NotReady(f"not every gateway took revision {revision.number} in {CHANGE_SECONDS:.0f} s")
            with contextlib.suppress(TimeoutError):  # then one may have gone
                async with asyncio.timeout(GONE_SECONDS):
                    await self._moved.wait()
        reports = {name: one.report for name, one in self._followers.items()}
        problems = {name: one.problems[model] for name, one in reports.items() if model in one.problems}
        return Change(revision, problems, len(reports))

    async def follow(
        self, follower: str, known: Revision, report: Report, patience: float = FOLLOW_SECONDS
    ) -> Revision:
        """The first revision after `known`, as soon as there is one; the present one when `patience` seconds have passed.

        `report` says what the follower has made of `known`.
        """
        self._adopt(known)
        entry = self._followers[follower] = Follower(report, self.clock())
        self._tell()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    while self.current.number <= known.number:
                        await self._moved.wait()
        finally:
            entry.asking, entry.heard = False, self.clock()
        return self.current

    async def report(self, follower: str, report: Report) -> None:
        """A follower's models have changed, or could not."""
        if follower in self._followers:
            self._followers[follower].report = report
            self._tell()

    def _tell(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()

    def _adopt(self, known: Revision) -> None:
        if known.number > self.current.number:
            self.current = known

    def _all_have_settled(self, model: str, number: int) -> bool:
        late = self.clock() - GONE_SECONDS
        gone = [name for name, one in self._followers.items() if not one.asking and one.heard < late]
        for name in gone:
            del self._followers[name]
        return all(one.report.has_settled(model, number) for one in self._followers.values())
