"""The port of the native gRPC server: connections go through a guard of their messages to the server's Unix socket."""

from __future__ import annotations

import asyncio
import shutil
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import cast
from urllib.parse import quote

from serve.acceptor import Acceptor
from serve.grpc.frames import PREFACE, Broken, Guard

BACKLOG = 4096
LINGER_SECONDS = 10  # for a client to read what was on its way when its connection ended


class GrpcFront:
    """Listens for clients. Several fronts of a node share the port (SO_REUSEPORT)."""

    def __init__(self, host: str, port: int, most_bytes: int) -> None:
        """Raises OSError when the port is taken."""
        self._listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            self._listener.bind((host, port))
        except OSError:
            self._listener.close()
            raise
        self._folder = Path(tempfile.mkdtemp(prefix="convoy-grpc-"))  # mode 0700: nobody passes by the guard
        self.path = self._folder / "server.sock"
        self._most_bytes = most_bytes
        self._acceptor: Acceptor | None = None

    async def start(self) -> None:
        """From now on clients are let in; the server must listen at `path`."""
        self._acceptor = Acceptor(self._connection)
        await self._acceptor.start(self._listener, BACKLOG)

    def close(self) -> None:
        """Lets nobody else in."""
        if self._acceptor is not None:
            self._acceptor.close()
        self._listener.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _connection(self) -> _Client:
        return _Client(self.path, self._most_bytes)


class _End(asyncio.Protocol):
    """One end of a connection that is passed on. `other` is the one beyond, once it is there."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: _End | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def pause_writing(self) -> None:
        if (source := self._source()) is not None:
            source.pause_reading()

    def resume_writing(self) -> None:
        if (source := self._source()) is not None:
            source.resume_reading()

    def _source(self) -> asyncio.Transport | None:
        """Where what is written here comes from, unless it is closing."""
        source = self.other.transport if self.other is not None else None
        return None if source is None or source.is_closing() else source

    def connection_lost(self, error: Exception | None) -> None:
        if self.other is not None:
            self.other.end()

    def send(self, data: bytes) -> None:
        if data and self.transport is not None:
            self.transport.write(data)

    def end(self) -> None:
        """Closes after what is to be written, or without it when nobody reads."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()
            asyncio.get_running_loop().call_later(LINGER_SECONDS, self.transport.abort)


class _Client(_End):
    """The end at which a client is."""

    def __init__(self, path: Path, most_bytes: int) -> None:
        super().__init__()
        self._path = path
        self._most_bytes = most_bytes
        self._opening: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._guard = Guard(peer_name(transport.get_extra_info("peername")), self._most_bytes)
        cast(asyncio.Transport, transport).pause_reading()
        self._opening = asyncio.ensure_future(self._open())

    async def _open(self) -> None:
        server = _Server(self, self._answer)
        try:
            await asyncio.get_running_loop().create_unix_connection(lambda: server, str(self._path))
        except OSError:  # the server is going
            self.end()
            return
        self.other = server
        server.send(PREFACE)
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        if self._opening is not None:
            self._opening.cancel()
        super().connection_lost(error)

    def data_received(self, data: bytes) -> None:
        try:
            onward, back = self._guard.request(data)
        except Broken:
            self.end()
            return
        if self.other is not None:
            self.other.send(onward)
        self.send(back)

    def _answer(self, data: bytes) -> None:
        try:
            self.send(self._guard.answer(data))
        except Broken:
            self.end()


class _Server(_End):
    """The end at which the server is."""

    def __init__(self, client: _End, receive: Callable[[bytes], None]) -> None:
        super().__init__()
        self.other = client
        self._receive = receive

    def data_received(self, data: bytes) -> None:
        self._receive(data)


def peer_name(address: tuple[str, int] | tuple[str, int, int, int] | None) -> str:
    """A client's address as gRPC names it, for example `ipv4:127.0.0.1:53412` or `ipv6:%5B::1%5D:53412`."""
    if not address:
        return ""
    host, port = address[:2]
    return f"ipv6:{quote(f'[{host}]', ':')}:{port}" if ":" in host else f"ipv4:{host}:{port}"
