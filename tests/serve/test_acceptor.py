"""Connections are accepted as fast as they arrive, with uvloop too."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest
import uvloop

from serve.acceptor import MAX_PER_TURN, Acceptor
from serve.config.schema import Tls
from serve.tls import server_context
from tests.certificates import Authority

CONNECTIONS = 3 * MAX_PER_TURN


def listening(ends: ExitStack) -> socket.socket:
    listener = ends.enter_context(socket.socket())
    listener.bind(("127.0.0.1", 0))
    listener.listen(CONNECTIONS)
    return listener


def connect_all(ends: ExitStack, listener: socket.socket, size: int = CONNECTIONS) -> list[socket.socket]:
    return [ends.enter_context(socket.create_connection(listener.getsockname())) for _ in range(size)]


@pytest.mark.parametrize("runner", [uvloop.run, asyncio.run])
def test_many_connections_are_accepted_in_few_loop_iterations(runner: object) -> None:
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
            kept = ends.enter_context(listener.dup())  # another gateway on the same socket
            acceptor = Acceptor(Echo)
            await acceptor.start(listener, CONNECTIONS)
            first = ends.enter_context(socket.create_connection(kept.getsockname()))
            await opened.wait()
            acceptor.close()
            await acceptor.wait_closed()
            opened.clear()
            ends.enter_context(socket.create_connection(kept.getsockname()))
            first.send(b"x")
            assert await asyncio.to_thread(first.recv, 1) == b"x"
            assert not opened.is_set()

    uvloop.run(main())


def test_closing_the_acceptor_ends_unfinished_handshakes(tmp_path: Path) -> None:
    """A gateway that drains must not wait up to a minute for them."""
    pair = Authority(tmp_path, "root").sign("server")
    context = server_context(Tls(certificate=str(pair.certificate), key=str(pair.key)))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with ExitStack() as ends:
            listener = listening(ends)
            acceptor = Acceptor(asyncio.Protocol, context)
            await acceptor.start(listener, CONNECTIONS)
            silent = connect_all(ends, listener, MAX_PER_TURN)[1:]  # the loop itself accepts the first
            while len(acceptor._opening) < len(silent):  # noqa: ASYNC110 there is no event to await
                await asyncio.sleep(0)
            acceptor.close()
            await asyncio.wait_for(acceptor.wait_closed(), 30)
            for client in silent:
                client.setblocking(False)
                assert await asyncio.wait_for(loop.sock_recv(client, 1), 30) == b""

    uvloop.run(main())


def test_a_connection_that_is_not_opened_yet_is_closed() -> None:
    async def main() -> bytes:
        with ExitStack() as ends:
            listener = listening(ends)
            acceptor = Acceptor(asyncio.Protocol)
            await acceptor.start(listener, CONNECTIONS)
            (client,) = connect_all(ends, listener, 1)
            acceptor._accept_pending()
            acceptor.close()
            await acceptor.wait_closed()  # cancels the task before its first turn
            client.settimeout(30)
            return client.recv(1)

    assert asyncio.run(main()) == b""
