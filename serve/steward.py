"""The steward: one replica that changes things. It decides on revisions; every gateway follows them.

It keeps nothing on disk: whoever speaks to it says what it knows, and the highest revision is the truth, so a steward that
was restarted learns from the gateways what it had decided.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ray import serve as ray_serve

from convoy.errors import NotReady
from serve.remote import STEWARD_APP, ask
from serve.wall_clock import WallClock, renew_controller, watch

FOLLOW_SECONDS = 5.0  # how long a gateway's question may stay open
GONE_SECONDS = 2.0  # a gateway that asks nothing for so long, and owes nothing, has gone
CHANGE_SECONDS = 60.0  # a large engine takes long to load


@dataclass(frozen=True)
class Revision:
    """Which models of the catalog are out of service. Of two, the one with the higher number is the truth."""

    number: int = 0
    unloaded: frozenset[str] = frozenset()


@dataclass
class Follower:
    """A gateway: the revision it has brought into effect, and when it was last heard of."""

    effective: int
    heard: float
    asking: bool = True


@dataclass
class Revisions:
    """The present revision and who follows it. Lives on one event loop."""

    clock: Callable[[], float] = time.monotonic
    current: Revision = field(default_factory=Revision)
    _followers: dict[str, Follower] = field(default_factory=dict)
    _moved: asyncio.Event = field(default_factory=asyncio.Event)  # set, and replaced, whenever anything changes

    async def set_loaded(self, model: str, loaded: bool, known: Revision) -> Revision:
        """Puts a model in or out of service; returns when every gateway has done so. Raises NotReady when one does not."""
        self._adopt(known)
        unloaded = self.current.unloaded - {model} if loaded else self.current.unloaded | {model}
        revision = self.current = Revision(self.current.number + 1, unloaded)
        self._tell()
        deadline = self.clock() + CHANGE_SECONDS
        while not self._all_at(revision.number):
            if self.clock() > deadline:
                raise NotReady(f"not every gateway took revision {revision.number} in {CHANGE_SECONDS:.0f} s")
            with contextlib.suppress(TimeoutError):  # then one may have gone
                async with asyncio.timeout(GONE_SECONDS):
                    await self._moved.wait()
        return revision

    async def follow(
        self, follower: str, known: Revision, effective: int, patience: float = FOLLOW_SECONDS
    ) -> Revision:
        """The first revision after `known`, as soon as there is one; the present one when `patience` seconds have passed.

        `effective` is the number of the one that the follower has brought into effect.
        """
        self._adopt(known)
        entry = self._followers[follower] = Follower(effective, self.clock())
        self._tell()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    while self.current.number <= known.number:
                        await self._moved.wait()
        finally:
            entry.asking, entry.heard = False, self.clock()
        return self.current

    async def report(self, follower: str, effective: int) -> None:
        """A follower has brought a revision into effect."""
        if follower in self._followers:
            self._followers[follower].effective = effective
            self._tell()

    def _tell(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()

    def _adopt(self, known: Revision) -> None:
        if known.number > self.current.number:
            self.current = known

    def _all_at(self, number: int) -> bool:
        late = self.clock() - GONE_SECONDS
        gone = [name for name, one in self._followers.items() if not one.asking and one.heard < late]
        for name in gone:
            del self._followers[name]
        return all(one.effective >= number for one in self._followers.values())


@ray_serve.deployment(
    name="steward",
    num_replicas=1,
    max_ongoing_requests=1000,
    health_check_period_s=5,
    graceful_shutdown_timeout_s=1,
    ray_actor_options={"num_cpus": 0},
)
class Steward:
    """Deployment of the steward."""

    async def __init__(self) -> None:  # type: ignore[misc] # Ray awaits it
        self._revisions = Revisions()
        self._watch = asyncio.create_task(watch(WallClock(), renew_controller))

    async def set_loaded(self, model: str, loaded: bool, known: Revision) -> Revision:
        return await self._revisions.set_loaded(model, loaded, known)

    async def follow(self, follower: str, known: Revision, effective: int) -> Revision:
        return await self._revisions.follow(follower, known, effective)

    async def report(self, follower: str, effective: int) -> None:
        await self._revisions.report(follower, effective)


class StewardClient:
    """The steward as gateways see it. Raises NotReady when it is away."""

    async def set_loaded(self, model: str, loaded: bool, known: Revision) -> Revision:
        answer: Revision = await ask(STEWARD_APP, "set_loaded", model, loaded, known)
        return answer

    async def follow(self, follower: str, known: Revision, effective: int) -> Revision:
        answer: Revision = await ask(STEWARD_APP, "follow", follower, known, effective)
        return answer

    async def report(self, follower: str, effective: int) -> None:
        await ask(STEWARD_APP, "report", follower, effective)
