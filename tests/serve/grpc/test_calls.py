from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from serve.grpc.calls import pipelined


async def numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


async def collect(answers: AsyncIterator[int]) -> list[int]:
    return [answer async for answer in answers]


def test_answers_come_in_the_order_of_their_requests() -> None:
    async def scenario() -> list[int]:
        gates = [asyncio.Event() for _ in range(5)]

        async def answer(number: int) -> int:
            if number == 4:  # the last one ends first and frees the others, last to first
                gates[3].set()
            else:
                await gates[number].wait()
                gates[max(0, number - 1)].set()
            return number

        return await collect(pipelined(numbers(5), answer))

    assert asyncio.run(scenario()) == [0, 1, 2, 3, 4]


def test_no_more_than_the_depth_are_under_way() -> None:
    async def scenario() -> int:
        under_way = most = 0

        async def answer(number: int) -> int:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0)
            under_way -= 1
            return number

        assert await collect(pipelined(numbers(50), answer, depth=4)) == list(range(50))
        return most

    assert 1 < asyncio.run(scenario()) <= 4


def test_a_broken_stream_ends_with_its_error() -> None:
    async def broken() -> AsyncIterator[int]:
        yield 1
        raise ConnectionError

    async def answer(number: int) -> int:
        return number

    async def scenario() -> list[int]:
        stream = pipelined(broken(), answer)
        first = await anext(stream)
        with pytest.raises(ConnectionError):
            await anext(stream)
        return [first]

    assert asyncio.run(scenario()) == [1]


def test_who_stops_reading_cancels_what_is_left() -> None:
    async def scenario() -> int:
        cancelled = 0
        started = asyncio.Event()

        async def answer(number: int) -> int:
            nonlocal cancelled
            if number == 0:
                await started.wait()
                return 0
            started.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled += 1
                raise
            return number

        stream = pipelined(numbers(3), answer)
        assert await anext(stream) == 0
        await stream.aclose()  # type: ignore[attr-defined] # it is a generator
        await asyncio.sleep(0)
        return cancelled

    assert asyncio.run(scenario()) == 2
