"""Coroutines that start at once, and go on in a task if they wait for something."""

from __future__ import annotations

import asyncio

from serve import eager


def test_a_coroutine_that_waits_for_nothing_needs_no_task() -> None:
    async def main() -> None:
        ran = []

        async def work() -> None:
            ran.append(1)

        assert eager.start(work(), asyncio.get_running_loop()) is None
        assert ran == [1]

    asyncio.run(main())


def test_a_coroutine_that_waits_goes_on_in_a_task() -> None:
    async def main() -> None:
        gate, steps = asyncio.Event(), []

        async def work() -> None:
            steps.append("began")
            await gate.wait()
            async with asyncio.timeout(30):
                await asyncio.sleep(0)
            steps.append("ended")

        task = eager.start(work(), asyncio.get_running_loop())
        assert task is not None
        assert steps == ["began"]
        gate.set()
        await task
        assert steps == ["began", "ended"]

    asyncio.run(main())


def test_a_cancelled_task_ends_its_coroutine() -> None:
    async def main() -> None:
        ended = []

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(1)

        task = eager.start(work(), asyncio.get_running_loop())
        assert task is not None
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert ended == [1]

    asyncio.run(main())


def test_the_rest_of_a_stepped_coroutine_has_its_result() -> None:
    async def main() -> None:
        async def work() -> int:
            await asyncio.sleep(0)
            return 7

        coroutine = work()
        assert await eager.finish(coroutine, coroutine.send(None)) == 7

    asyncio.run(main())
