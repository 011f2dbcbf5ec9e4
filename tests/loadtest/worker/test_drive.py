"""Drivers: when requests start in open and closed loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from time import monotonic

from loadtest.arrivals import Due
from loadtest.worker.drive import AT_ONCE, ClosedDriver, OpenDriver


def all_due_at(time: float, count: int) -> Iterator[Due]:
    return iter([Due(number, time, 0, 0) for number in range(count)])


def test_overdue_requests_let_the_event_loop_run_in_between() -> None:
    """Other callbacks of the event loop run after every AT_ONCE requests."""

    async def run() -> tuple[list[int], list[float]]:
        sent_at_turns: list[int] = []
        scheduled: list[float] = []
        driver = OpenDriver(all_due_at(0.0, 3 * AT_ONCE), lambda due, at: scheduled.append(at))

        def turn() -> None:
            sent_at_turns.append(driver.issued)
            if not driver.ended.is_set():
                asyncio.get_running_loop().call_soon(turn)

        start = monotonic()
        driver.begin(start, start + 60)
        turn()
        await driver.ended.wait()
        driver.close()
        assert set(scheduled) == {start}
        return sent_at_turns, scheduled

    turns, scheduled = asyncio.run(run())
    assert len(scheduled) == 3 * AT_ONCE
    assert {AT_ONCE, 2 * AT_ONCE} <= set(turns)


def test_a_driver_that_is_far_behind_drops_requests_and_reports_it() -> None:
    async def run() -> OpenDriver:
        driver = OpenDriver(all_due_at(0.0, 10), lambda due, at: None)
        start = monotonic() - 5
        driver.begin(start, start + 1)
        await driver.ended.wait()
        driver.close()
        return driver

    driver = asyncio.run(run())
    assert driver.unsent
    assert driver.issued == 0


def test_a_driver_on_time_sends_all_requests() -> None:
    async def run() -> OpenDriver:
        driver = OpenDriver(iter([Due(0, 0.0, 0, 0), Due(1, 0.02, 0, 0)]), lambda due, at: None)
        driver.begin(monotonic(), monotonic() + 60)
        await driver.ended.wait()
        driver.close()
        return driver

    driver = asyncio.run(run())
    assert (driver.issued, driver.unsent) == (2, False)


def test_closed_loop_keeps_its_concurrency() -> None:
    async def run() -> list[int]:
        waiting: list[int] = []
        in_flight: list[int] = []

        def issue(due: Due, at: float) -> None:
            waiting.append(due.index)
            in_flight.append(len(waiting))
            if len(in_flight) == 50:
                driver.stop()
            asyncio.get_running_loop().call_later(0.001, answer)

        def answer() -> None:
            waiting.pop()
            driver.completed()

        driver = ClosedDriver(all_due_at(0.0, 10_000), issue, 3, 0.0)
        driver.begin(monotonic(), monotonic() + 60)
        await driver.ended.wait()
        driver.close()
        return in_flight

    in_flight = asyncio.run(run())
    assert max(in_flight) == 3
    assert len(in_flight) == 50
