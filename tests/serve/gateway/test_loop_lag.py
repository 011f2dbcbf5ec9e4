"""How late a busy event loop is, on a clock of the test's own."""

from __future__ import annotations

import asyncio

import pytest

from serve.gateway.loop_lag import BEAT_SECONDS, LEAST_ANSWERS, LEAST_SECONDS, REQUEST_SECONDS, TURNS, LoopLag
from tests.virtual_time import run_virtually


def running() -> tuple[LoopLag, list[float]]:
    """A lag whose clock is the loop's plus what the list's only number says: a turn that takes time moves that one."""
    loop, extra = asyncio.get_running_loop(), [0.0]
    lag = LoopLag(lambda: loop.time() + extra[0])
    lag.start()
    return lag, extra


def test_a_loop_that_keeps_up_costs_a_request_nothing() -> None:
    async def main() -> None:
        lag, _ = running()
        await asyncio.sleep(50 * BEAT_SECONDS)
        assert lag.expected() == 0.0
        lag.close()

    run_virtually(main())


def test_lag_that_lasts_delays_each_turn_of_a_request_and_a_long_turn_only_once() -> None:
    async def main() -> None:
        lag, extra = running()
        extra[0] += BEAT_SECONDS + 0.1
        assert 0.09 <= lag.expected() <= 0.11  # before the beat that is late has come
        for _ in range(10):
            await asyncio.sleep(BEAT_SECONDS)
            extra[0] += 0.1
        assert lag.expected() >= TURNS * 0.05
        await asyncio.sleep(100 * BEAT_SECONDS)
        assert lag.expected() == 0.0
        lag.close()

    run_virtually(main())


def test_what_a_turn_lets_in_makes_the_next_one_late() -> None:
    async def main() -> None:
        lag, _ = running()
        crowd = int(2 * LEAST_SECONDS / REQUEST_SECONDS)
        for _ in range(crowd):
            lag.admitted()
        assert lag.expected() == pytest.approx(crowd * REQUEST_SECONDS)
        await asyncio.sleep(0)
        assert lag.expected() == 0.0  # they are at work, or wait in their queue
        lag.close()

    run_virtually(main())


def test_a_stall_however_long_refuses_nobody_who_has_seconds() -> None:
    async def main() -> None:
        lag, extra = running()
        extra[0] += 60.0
        assert lag.expected() <= 2.0
        await asyncio.sleep(BEAT_SECONDS)
        assert lag.expected() <= 2.0
        await asyncio.sleep(0.5)
        assert lag.expected() == 0.0
        lag.close()

    run_virtually(main())


def test_what_an_overload_taught_fades_where_few_are_answered() -> None:
    async def main() -> None:
        cpu = [0.0]
        lag = LoopLag(asyncio.get_running_loop().time, lambda: cpu[0])
        lag.start()
        for _ in range(100):  # of its time it spends most on refusals
            cpu[0] += BEAT_SECONDS
            for _ in range(LEAST_ANSWERS):
                lag.answered()
            await asyncio.sleep(BEAT_SECONDS)
        lag.admitted()
        lag.admitted()
        assert lag.expected() > 0.0
        for _ in range(50):
            lag.answered()
            await asyncio.sleep(BEAT_SECONDS)
        for _ in range(8):
            lag.admitted()
        assert lag.expected() == 0.0
        lag.close()

    run_virtually(main())
