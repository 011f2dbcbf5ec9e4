"""The port in front of the native gRPC server: nothing that a client sends is lost."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from serve.grpc.frames import PREFACE
from serve.grpc.front import GrpcFront

PING = b"\x00\x00\x08\x06\x00\x00\x00\x00\x00" + b"12345678"


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_bytes_that_arrive_before_the_server_is_connected_are_forwarded(
    run: Callable[[Coroutine[Any, Any, None]], None], free_ports: Callable[[int], list[int]]
) -> None:
    """uvloop starts to read after `connection_made`, even if that has paused reading."""
    (port,) = free_ports(1)

    async def scenario() -> None:
        received: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            received.set_result(await reader.readexactly(len(PREFACE + PING)))
            writer.close()

        front = GrpcFront("127.0.0.1", port, 1000, list[str]().append)
        server = await asyncio.start_unix_server(serve, front.path)
        await front.start()
        # The event loop does not run meanwhile, so it finds the bytes together with the connection.
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(PREFACE + PING)
            assert await asyncio.wait_for(received, 30) == PREFACE + PING
        await front.stop()
        server.close()

    run(scenario())


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_large_message_is_forwarded_unchanged_with_back_pressure(
    run: Callable[[Coroutine[Any, Any, None]], None], free_ports: Callable[[int], list[int]]
) -> None:
    (port,) = free_ports(1)
    content = bytes(range(256)) * 20_000 + b"the end"
    message = b"\0" + len(content).to_bytes(4, "big") + content
    pieces = [message[at : at + 16_384] for at in range(0, len(message), 16_384)]
    data = b"".join(len(piece).to_bytes(3, "big") + b"\0\0\0\0\0\1" + piece for piece in pieces)
    opening = b"\x00\x00\x01\x01\x04\x00\x00\x00\x01\x82"  # HEADERS

    async def scenario() -> None:
        received: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            found = await reader.readexactly(len(PREFACE))
            while not found.endswith(b"the end"):
                found += await reader.read(100_000)
            received.set_result(found)
            writer.close()

        front = GrpcFront("127.0.0.1", port, len(content), list[str]().append)
        server = await asyncio.start_unix_server(serve, front.path)
        await front.start()
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(PREFACE + opening + data)
        found = await asyncio.wait_for(received, 30)
        assert found.startswith(PREFACE)
        assert found.endswith(data)
        writer.close()
        await front.stop()
        server.close()

    run(scenario())


def test_a_front_keeps_its_connections_until_it_stops(free_ports: Callable[[int], list[int]]) -> None:
    (port,) = free_ports(1)

    async def scenario() -> bytes:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readexactly(len(PREFACE + PING))
            writer.write(PING)
            await reader.read()
            writer.close()

        front = GrpcFront("127.0.0.1", port, 1000, list[str]().append)
        server = await asyncio.start_unix_server(serve, front.path)
        await front.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(PREFACE)
        front.stop_accepting()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        writer.write(PING)
        answer = await reader.readexactly(len(PING))
        server.close()
        await front.stop()
        assert front.connections == 0
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        return answer

    assert asyncio.run(scenario()) == PING
