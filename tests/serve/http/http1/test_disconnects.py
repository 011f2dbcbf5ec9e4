"""Clients that disconnect while the server does not read: their requests end, and half-closed clients are still answered."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from serve.config.schema import Limits
from serve.http.http1.asgi_cycle import HIGH_WATER_BYTES
from serve.http.http1.connection import MOST_PROBES
from tests.serve.conversations import PATIENCE, Conversation, Gate, parse_answers

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends a reset
LARGE = 4 * HIGH_WATER_BYTES
NEXT = b"GET /next HTTP/1.1\r\nhost: here\r\n\r\n"
RUNNERS = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
Run = Callable[[Coroutine[Any, Any, Any]], Any]


def post(size: int, declared: int = 0, path: bytes = b"/cold") -> bytes:
    return b"POST %s HTTP/1.1\r\nhost: here\r\ncontent-length: %d\r\n\r\n" % (path, declared or size) + bytes(size)


# What arrives before the client disconnects. The server then reads no more, in each of these cases.
SENT = {
    "the beginning of a large body": post(LARGE, LARGE * 4),
    "a large body": post(LARGE),
    "a request that waits for its turn": post(10) + NEXT,
    "a request behind a hot one": post(10, path=b"/hot") + NEXT,
}


async def checked(client: Conversation) -> None:
    """Looks after the connection, as the server does once a second, until it is closed."""
    async with asyncio.timeout(PATIENCE):
        while not client.transport.is_closing():
            client.connection.check_time(asyncio.get_running_loop().time())
            await asyncio.sleep(0.01)


@RUNNERS
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("sent", SENT)
def test_a_client_that_has_gone_is_noticed(sent: str, reset: bool, run: Run) -> None:
    async def scenario() -> None:
        gate = Gate()
        async with Conversation(gate, Limits(), tcp=True) as client:
            await client.send(SENT[sent])
            if reset:
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            client.socket.close()
            await checked(client)
            gate.open.set()

    run(scenario())


@RUNNERS
def test_a_client_that_leaves_after_a_large_body_is_noticed_at_once(run: Run) -> None:
    """The server does not wait for its next look at the connection."""

    async def scenario() -> None:
        gate = Gate(reads_body=True)
        async with Conversation(gate, Limits(), tcp=True) as client:
            await client.send(post(LARGE))
            async with asyncio.timeout(PATIENCE):
                await gate.read.wait()
                client.socket.close()
                while not client.transport.is_closing():  # noqa: ASYNC110 the connection has no event to await
                    await asyncio.sleep(0.01)
            gate.open.set()

    run(scenario())


@RUNNERS
@pytest.mark.parametrize("sent", SENT)
def test_a_half_closed_client_is_answered(sent: str, run: Run) -> None:
    async def scenario() -> bytes:
        gate = Gate()
        async with Conversation(gate, Limits(), tcp=True) as client:
            data = SENT[sent]
            await client.send(data + bytes(3 * LARGE) if sent == "the beginning of a large body" else data)
            client.socket.shutdown(socket.SHUT_WR)
            for _ in range(3):
                client.connection.check_time(asyncio.get_running_loop().time())
                await asyncio.sleep(0.05)
            gate.open.set()
            return await client.rest()

    received = run(scenario())
    assert received.count(b"HTTP/1.1 100 ") <= MOST_PROBES * (1 + SENT[sent].count(NEXT))
    assert [answer.status for answer in parse_answers(received)] == [200] * (1 + SENT[sent].count(NEXT))
