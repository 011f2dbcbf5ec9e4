"""The estimated lag of a busy event loop, in virtual time."""

from __future__ import annotations

import asyncio

from serve.gateway.loop_lag import BEAT_SECONDS, TURNS, LoopLag
from tests.virtual_time import run_virtually


class Work:
    """Time that callbacks of the loop have taken. Virtual time passes only while the loop is idle."""

    seconds = 0.0


def running() -> tuple[LoopLag, Work]:
    """A started estimator, and the work that its clock adds to the time of the loop."""
    loop, work = asyncio.get_running_loop(), Work()
    lag = LoopLag(lambda: loop.time() + work.seconds)
    lag.start()
    return lag, work


def test_a_loop_that_keeps_up_has_no_lag() -> None:
    async def main() -> None:
        lag, _ = running()
        await asyncio.sleep(50 * BEAT_SECONDS)
        assert lag.expected() == 0.0
        lag.close()

    run_virtually(main())


def test_lasting_lag_delays_every_iteration_of_a_request_and_a_long_iteration_only_one() -> None:
    async def main() -> None:
        lag, work = running()
        work.seconds += BEAT_SECONDS + 0.1
        assert 0.09 <= lag.expected() <= 0.11  # the late timer has not fired yet
        for _ in range(10):
            await asyncio.sleep(BEAT_SECONDS)
            work.seconds += 0.1
        assert lag.expected() >= TURNS * 0.05
        await asyncio.sleep(100 * BEAT_SECONDS)
        assert lag.expected() == 0.0
        lag.close()

    run_virtually(main())


def test_the_lag_after_a_stall_is_bounded() -> None:
    async def main() -> None:
        lag, work = running()
        work.seconds += 60.0
        assert lag.expected() <= 2.0
        await asyncio.sleep(BEAT_SECONDS)
        assert lag.expected() <= 2.0
        await asyncio.sleep(0.5)
        assert lag.expected() == 0.0
        lag.close()

    run_virtually(main())
