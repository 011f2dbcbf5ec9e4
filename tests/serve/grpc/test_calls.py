"""Concurrent requests in a gRPC stream: order, limits, errors and cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from serve.grpc.calls import ends_late, pipelined


async def numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


async def collect(answers: AsyncIterator[int]) -> list[int]:
    return [answer async for answer in answers]


def test_responses_keep_the_order_of_the_requests() -> None:
    async def scenario() -> list[int]:
        gates = [asyncio.Event() for _ in range(5)]

        async def answer(number: int) -> int:
            if number == 4:  # the last request ends first and releases the others in reverse order
                gates[3].set()
            else:
                await gates[number].wait()
                gates[max(0, number - 1)].set()
            return number

        return await collect(pipelined(numbers(5), answer))

    assert asyncio.run(scenario()) == [0, 1, 2, 3, 4]


def test_at_most_depth_requests_are_in_flight() -> None:
    async def scenario() -> int:
        in_flight = peak = 0

        async def answer(number: int) -> int:
            nonlocal in_flight, peak
            in_flight += 1
            peak = max(peak, in_flight)
            await asyncio.sleep(0)
            in_flight -= 1
            return number

        assert await collect(pipelined(numbers(50), answer, depth=4)) == list(range(50))
        return peak

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


def test_closing_the_stream_cancels_pending_requests() -> None:
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
        await stream.aclose()  # type: ignore[attr-defined] # an async generator
        await asyncio.sleep(0)
        return cancelled

    assert asyncio.run(scenario()) == 2


@pytest.mark.parametrize(
    ("remaining", "elapsed", "late"),
    [
        (None, 9.0, False),
        (0.0, 1.0, True),
        (-1.0, 1.0, True),
        (0.02, 1.98, True),  # a client rounds 1,981 ms up to 2 s
        (0.5, 1.5, False),
        (59.0, 1.0, False),
    ],
)
def test_a_client_that_cancels_at_its_own_deadline_is_late(remaining: float | None, elapsed: float, late: bool) -> None:
    assert ends_late(remaining, elapsed) == late
