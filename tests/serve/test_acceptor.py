"""Connections are accepted as fast as they arrive, with uvloop too."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from contextlib import ExitStack

import pytest
import uvloop

from serve.acceptor import MAX_PER_TURN, Acceptor

CONNECTIONS = 3 * MAX_PER_TURN


def listening(ends: ExitStack) -> socket.socket:
    listener = ends.enter_context(socket.socket())
    listener.bind(("127.0.0.1", 0))
    listener.listen(CONNECTIONS)
    return listener


def connect_all(ends: ExitStack, listener: socket.socket) -> list[socket.socket]:
    return [ends.enter_context(socket.create_connection(listener.getsockname())) for _ in range(CONNECTIONS)]


@pytest.mark.parametrize("runner", [uvloop.run, asyncio.run])
def test_many_connections_are_accepted_in_few_turns(runner: object) -> None:
    async def main() -> Counter[int]:
        turn, made = 0, Counter[int]()

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                made[turn] += 1
                transport.close()

        with ExitStack() as ends:
            listener = listening(ends)
            acceptor = Acceptor(Protocol)
            await acceptor.start(listener, CONNECTIONS)
            connect_all(ends, listener)
            while made.total() < CONNECTIONS:
                turn += 1
                await asyncio.sleep(0)
            acceptor.close()
            await acceptor.wait_closed()
        return made

    assert len(runner(main())) < CONNECTIONS / MAX_PER_TURN * 4  # type: ignore[operator]


def test_a_closed_acceptor_accepts_no_connection_and_keeps_the_open_ones() -> None:
    async def main() -> None:
        opened = asyncio.Event()

        class Echo(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                self.transport = transport
                opened.set()

            def data_received(self, data: bytes) -> None:
                self.transport.write(data)  # type: ignore[attr-defined]

        with ExitStack() as ends:
            listener = listening(ends)
            held = ends.enter_context(listener.dup())  # as another gateway would
            acceptor = Acceptor(Echo)
            await acceptor.start(listener, CONNECTIONS)
            first = ends.enter_context(socket.create_connection(held.getsockname()))
            await opened.wait()
            acceptor.close()
            await acceptor.wait_closed()
            opened.clear()
            ends.enter_context(socket.create_connection(held.getsockname()))
            first.send(b"x")
            assert await asyncio.to_thread(first.recv, 1) == b"x"
            assert not opened.is_set()

    uvloop.run(main())
