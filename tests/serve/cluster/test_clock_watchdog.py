"""The watchdog of the wall clock."""

from __future__ import annotations

import asyncio

import pytest

from serve.cluster import clock_watchdog
from serve.cluster.clock_watchdog import ClockWatchdog, watch


class Time:
    """A wall clock that tests can set, and a monotonic clock."""

    def __init__(self) -> None:
        self.passed, self.offset = 0.0, 0.0

    def steady(self) -> float:
        return self.passed

    def wall(self) -> float:
        return 1e9 + self.passed + self.offset


@pytest.fixture
def time() -> Time:
    return Time()


def test_a_step_back_of_the_clock_is_reported_once(time: Time) -> None:
    clock = ClockWatchdog(time.wall, time.steady)
    for passed, moved, reported in ((10, 0, False), (10, 3600, False), (1, -3600, True), (1, 0, False), (1, -1, False)):
        time.passed += passed
        time.offset += moved
        assert clock.set_back() is reported


def test_renew_is_called_when_the_clock_was_set_back(time: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock_watchdog, "CHECK_SECONDS", 0)

    async def scenario() -> None:
        called = asyncio.Event()
        watching = asyncio.create_task(watch(ClockWatchdog(time.wall, time.steady), called.set))
        await asyncio.sleep(0)
        time.offset = -60
        await asyncio.wait_for(called.wait(), 30)
        watching.cancel()

    asyncio.run(scenario())
