"""Revisions of the coordinator: a change ends when every gateway has applied it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from convoy.errors import NotReady
from serve.gateway import revisions as revisions_module
from serve.gateway.revisions import Report, Revision, Revisions


@dataclass
class Gateway:
    """Follows the coordinator as a gateway does, and applies a revision when the test lets it."""

    name: str
    revisions: Revisions
    known: Revision = field(default_factory=Revision)
    may_apply: asyncio.Event = field(default_factory=asyncio.Event)
    applied: asyncio.Event = field(default_factory=asyncio.Event)
    report: Report = field(default_factory=lambda: Report(0))

    async def run(self) -> None:
        while True:
            revision = await self.revisions.follow(self.name, self.known, self.report)
            if revision.number > self.known.number:
                self.known = revision
                await self.may_apply.wait()
                self.report = Report(revision.number)
                self.applied.set()
                await self.revisions.report(self.name, self.report)


def test_a_change_ends_when_every_gateway_has_applied_it() -> None:
    async def scenario() -> None:
        revisions = Revisions()
        gateways = [Gateway(str(number), revisions) for number in range(3)]
        tasks = [asyncio.create_task(gateway.run()) for gateway in gateways]
        await asyncio.sleep(0)
        change = asyncio.create_task(revisions.set_loaded("m", False, Revision()))
        for gateway in gateways:
            assert not change.done()
            gateway.may_apply.set()
            await gateway.applied.wait()
        assert (await change).revision == Revision(1, frozenset({"m"}))
        assert (await revisions.set_loaded("m", True, Revision())).revision == Revision(2, frozenset())
        assert {gateway.report.number for gateway in gateways} == {2}
        for task in tasks:
            task.cancel()

    asyncio.run(scenario())


def test_a_gateway_that_has_ended_does_not_block_a_change() -> None:
    async def scenario() -> Revision:
        now = 0.0
        revisions = Revisions(clock=lambda: now)
        await revisions.follow("gone", Revision(), Report(0), patience=0.001)
        now = revisions_module.GONE_SECONDS + 1
        return (await revisions.set_loaded("m", False, Revision())).revision

    assert asyncio.run(scenario()).number == 1


def test_a_change_that_a_gateway_never_applies_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        monkeypatch.setattr(revisions_module, "CHANGE_SECONDS", 0.01)
        monkeypatch.setattr(revisions_module, "GONE_SECONDS", 0.005)
        revisions = Revisions()
        stuck = asyncio.create_task(Gateway("stuck", revisions).run())
        await asyncio.sleep(0)
        follow = asyncio.create_task(revisions.follow("stuck", Revision(9), Report(0)))
        with pytest.raises(NotReady, match="revision"):
            await revisions.set_loaded("m", False, Revision())
        stuck.cancel()
        follow.cancel()

    asyncio.run(scenario())


def test_a_restarted_coordinator_learns_the_last_decision_from_gateways() -> None:
    async def scenario() -> Revision:
        revisions = Revisions()
        decided = Revision(7, frozenset({"m"}))
        following = asyncio.create_task(revisions.follow("a", decided, Report(7)))
        late = await revisions.follow("b", Revision(), Report(0))
        following.cancel()
        return late

    assert asyncio.run(scenario()) == Revision(7, frozenset({"m"}))
