"""Connections are accepted as fast as they come, on uvloop too."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest
import uvloop

from serve.acceptor import MOST, Acceptor
from serve.config.schema import Tls
from serve.tls import server_context
from tests.certificates import Authority

CROWD = 3 * MOST


def listening(ends: ExitStack) -> socket.socket:
    listener = ends.enter_context(socket.socket())
    listener.bind(("127.0.0.1", 0))
    listener.listen(CROWD)
    return listener


def crowd(ends: ExitStack, listener: socket.socket, size: int = CROWD) -> list[socket.socket]:
    return [ends.enter_context(socket.create_connection(listener.getsockname())) for _ in range(size)]


@pytest.mark.parametrize("runner", [uvloop.run, asyncio.run])
def test_a_crowd_waits_for_few_turns(runner: object) -> None:
    async def main() -> Counter[int]:
        turn, made = 0, Counter[int]()

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                made[turn] += 1
                transport.close()

        with ExitStack() as ends:
            listener = listening(ends)
            acceptor = Acceptor(Protocol)
            await acceptor.start(listener, CROWD)
            crowd(ends, listener)
            while made.total() < CROWD:
                turn += 1
                await asyncio.sleep(0)
            acceptor.close()
            await acceptor.wait_closed()
        return made

    assert len(runner(main())) < CROWD / MOST * 4  # type: ignore[operator]


def test_a_closed_acceptor_takes_nobody_and_leaves_the_open_ones() -> None:
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
            held = ends.enter_context(listener.dup())  # as another gateway holds it
            acceptor = Acceptor(Echo)
            await acceptor.start(listener, CROWD)
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


def test_handshakes_that_clients_never_finish_end_with_the_acceptor(tmp_path: Path) -> None:
    """A gateway that drains must not wait for them: they may take a minute."""
    pair = Authority(tmp_path, "root").sign("server")
    context = server_context(Tls(certificate=str(pair.certificate), key=str(pair.key)))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with ExitStack() as ends:
            listener = listening(ends)
            acceptor = Acceptor(asyncio.Protocol, context)
            await acceptor.start(listener, CROWD)
            silent = crowd(ends, listener, MOST)[1:]  # the first is the loop's own
            while len(acceptor._opening) < len(silent):  # noqa: ASYNC110 nothing tells
                await asyncio.sleep(0)
            acceptor.close()
            await asyncio.wait_for(acceptor.wait_closed(), 30)
            for client in silent:
                client.setblocking(False)
                assert await asyncio.wait_for(loop.sock_recv(client, 1), 30) == b""

    uvloop.run(main())
