"""Worker threads: order, errors, cancellation and shutdown."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from serve.worker_threads import WorkThreads


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_functions_run_in_order_on_a_single_thread() -> None:
    order: list[tuple[int, str]] = []

    def work(number: int) -> int:
        order.append((number, threading.current_thread().name))
        return number * 2

    async def scenario() -> None:
        thread = WorkThreads("engine")
        assert await asyncio.gather(*(thread.run(work, number) for number in range(5))) == [0, 2, 4, 6, 8]
        thread.close()

    run(scenario)
    assert order == [(number, "engine") for number in range(5)]


def test_an_exception_reaches_the_caller_and_the_thread_continues() -> None:
    async def scenario() -> None:
        thread = WorkThreads("engine")
        with pytest.raises(ValueError, match="invalid literal"):
            await thread.run(int, "seven")
        assert await thread.run(int, "7") == 7
        thread.close()

    run(scenario)


def test_cancelled_work_is_not_run() -> None:
    async def scenario() -> None:
        thread, may_go, ran = WorkThreads("engine"), threading.Event(), list[str]()
        first = asyncio.create_task(thread.run(may_go.wait))
        second = asyncio.create_task(thread.run(ran.append, "second"))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        may_go.set()
        assert await first
        assert await thread.run(len, ran) == 0
        thread.close()

    run(scenario)


def test_closed_threads_finish_queued_work_and_accept_no_more() -> None:
    async def scenario() -> None:
        thread = WorkThreads("engine")
        last = asyncio.create_task(thread.run(threading.current_thread))
        await asyncio.sleep(0)
        thread.close()
        running = await last
        running.join(10)
        assert not running.is_alive()
        with pytest.raises(RuntimeError, match="closed"):
            await thread.run(int)

    run(scenario)


def test_a_closed_event_loop_does_not_end_the_thread() -> None:
    thread, may_go = WorkThreads("engine"), threading.Event()

    async def leave() -> None:
        waiting = asyncio.create_task(thread.run(may_go.wait))
        await asyncio.sleep(0)
        waiting.cancel()

    async def ask() -> int:
        return await thread.run(int, "7")

    asyncio.run(leave())
    may_go.set()
    assert asyncio.run(ask()) == 7
    thread.close()


def test_several_threads_work_in_parallel_and_all_end() -> None:
    barrier = threading.Barrier(3)

    def meet() -> threading.Thread:
        barrier.wait(10)
        return threading.current_thread()

    async def scenario() -> None:
        threads = WorkThreads("decode", 3)
        met = await asyncio.gather(*(threads.run(meet) for _ in range(3)))
        threads.close()
        for thread in set(met):
            thread.join(10)
        assert len(set(met)) == 3
        assert not any(thread.is_alive() for thread in met)

    run(scenario)
