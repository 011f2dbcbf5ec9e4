"""The HTTP transport with servers that close connections at bad moments: every call ends exactly once, and soon."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from loadtest.plan import Target
from loadtest.wire import outcomes
from loadtest.wire.calls import Call
from loadtest.wire.http import HttpTransport
from loadtest.wire.requests import Request

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
REQUEST = Request(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "")
PATIENCE_S = 20.0
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def closes_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def closes_after_one_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(ANSWER)
    writer.close()


async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while not reader.at_eof():
        try:
            await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            break
        writer.write(ANSWER)
    writer.close()


async def send_calls(handler: Handler, calls: int) -> tuple[Counter[int], Counter[int]]:
    """Sends calls in sequence. Returns counts of the outcomes, and how often each call ended."""
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    found: Counter[int] = Counter()
    ends: Counter[int] = Counter()
    ended = asyncio.Event()

    def done(call: Call, outcome: int, body: bytes, length: int | None) -> None:
        found[outcome] += 1
        ends[call.index] += 1
        ended.set()

    transport = HttpTransport(Target(url, timeout_s=PATIENCE_S * 2), done)
    for number in range(calls):
        ended.clear()
        transport.start(Call(number, 0, REQUEST, 0.0))
        await asyncio.wait_for(ended.wait(), PATIENCE_S)
    assert transport.in_flight == 0
    await transport.close()
    server.close()
    return found, ends


@pytest.mark.parametrize(
    ("handler", "expected"),
    [
        (answers, {200}),
        (closes_at_once, {outcomes.RESET}),
        # The client may or may not notice the closed idle connection before it uses it again; it must not hang.
        (closes_after_one_answer, {200, outcomes.RESET}),
    ],
)
def test_every_call_ends_once_whenever_the_server_closes(handler: Handler, expected: set[int]) -> None:
    found, ends = asyncio.run(send_calls(handler, 40))
    assert set(found) <= expected
    assert set(ends.values()) == {1}
    assert len(ends) == 40
