"""The port of the native gRPC server: forwards connections to the server's Unix socket, through a `FrameGuard` each."""

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
from serve.grpc.frames import PREFACE, FrameGuard, ProtocolError

BACKLOG = 4096
LINGER_SECONDS = 10  # for the other end to read what is buffered when its connection closes
END_SECONDS = 1.0  # for all of them to do so when the server stops


class GrpcFront:
    """Listens for clients. The fronts of a node share the port (SO_REUSEPORT)."""

    def __init__(self, host: str, port: int, max_bytes: int, count_refusal: Callable[[str], None]) -> None:
        """`max_bytes`, `count_refusal`: of each connection's FrameGuard.

        Raises OSError if the port is taken, or no folder can be made.
        """
        self._listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            self._listener.bind((host, port))
            folder = tempfile.mkdtemp(prefix="convoy-grpc-")  # mode 0700: no other user can bypass the guard
            self._folder = Path(folder)
        except OSError:
            self._listener.close()
            raise
        self.path = self._folder / "server.sock"
        self.fallback = self._folder / "grpcio.sock"  # of the server behind the native one
        self._max_bytes = max_bytes
        self._count_refusal = count_refusal
        self._acceptor: Acceptor | None = None
        self._clients: set[_Client] = set()
        self._stopped = False

    @property
    def connections(self) -> int:
        """Clients that are connected."""
        return len(self._clients)

    async def start(self) -> None:
        """Starts to accept clients. The server must already listen at `path`."""
        self._acceptor = Acceptor(self._connection)
        await self._acceptor.start(self._listener, BACKLOG)

    async def stop(self) -> None:
        """Closes the port and all connections. The server has closed its ends."""
        self.close()
        self._stopped = True
        if self._acceptor is not None:
            await self._acceptor.wait_closed()
        clients = list(self._clients)
        for client in clients:
            client.end()
        lost = [client.lost for client in clients]
        if lost:
            await asyncio.wait(lost, timeout=END_SECONDS)
        for client in self._clients:
            client.abort()

    def stop_accepting(self) -> None:
        """Leaves new connections to the other fronts of the port. Open connections stay open."""
        if self._acceptor is not None:
            self._acceptor.close()
        self._listener.close()

    def close(self) -> None:
        """Closes the port. Open connections stay open."""
        self.stop_accepting()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _connection(self) -> _Client:
        return _Client(self.path, self._max_bytes, self._count_refusal, self._opened)

    def _opened(self, client: _Client) -> None:
        self._clients.add(client)
        client.lost.add_done_callback(lambda _: self._clients.discard(client))
        if self._stopped:  # accepted while the server stopped
            client.abort()


class _End(asyncio.Protocol):
    """One end of a forwarded connection. `other` is the opposite end, once it is connected."""

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
        """The transport that feeds this end, for back-pressure; None if it is absent or closing."""
        source = self.other.transport if self.other is not None else None
        return None if source is None or source.is_closing() else source

    def connection_lost(self, error: Exception | None) -> None:
        if self.other is not None:
            self.other.end()

    def send(self, data: bytes | memoryview) -> None:
        """Writes to this end's socket; does nothing before it is connected."""
        if data and self.transport is not None:
            self.transport.write(data)

    def end(self) -> None:
        """Closes once buffered bytes are written, and after `LINGER_SECONDS` even if they are not."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()
            asyncio.get_running_loop().call_later(LINGER_SECONDS, self.transport.abort)

    def abort(self) -> None:
        """Closes without what is buffered."""
        if self.transport is not None:
            self.transport.abort()


class _Client(_End):
    """The end towards the client."""

    def __init__(
        self,
        path: Path,
        max_bytes: int,
        count_refusal: Callable[[str], None],
        on_open: Callable[[_Client], None],
    ) -> None:
        super().__init__()
        self._on_open = on_open
        self._count_refusal = count_refusal
        self._path = path
        self._max_bytes = max_bytes
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._opening: asyncio.Task[None] | None = None
        self._early = b""  # for the server, until it is connected

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = peer_name(transport.get_extra_info("peername"))
        self._guard = FrameGuard(peer, self._max_bytes, self._count_refusal)
        cast(asyncio.Transport, transport).pause_reading()  # uvloop reads once in spite of it
        self._opening = asyncio.ensure_future(self._open())
        self._on_open(self)

    async def _open(self) -> None:
        server = _Server(self, self._respond)
        try:
            await asyncio.get_running_loop().create_unix_connection(lambda: server, str(self._path))
        except OSError:  # the server is shutting down
            self.end()
            return
        self.other = server
        server.send(PREFACE + self._early)
        self._early = b""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        if self._opening is not None:
            self._opening.cancel()
        self.lost.set_result(None)
        super().connection_lost(error)

    def data_received(self, data: bytes) -> None:
        try:
            forward, back = self._guard.request(data)
        except ProtocolError:
            self.end()
            return
        if self.other is None:
            self._early = b"".join((self._early, *forward))
            if self.transport is not None:
                self.transport.pause_reading()
        else:
            for piece in forward:
                self.other.send(piece)
        self.send(back)

    def _respond(self, data: bytes) -> None:
        self.send(self._guard.respond(data))


class _Server(_End):
    """The end towards the native server."""

    def __init__(self, client: _End, receive: Callable[[bytes], None]) -> None:
        super().__init__()
        self.other = client
        self._receive = receive

    def data_received(self, data: bytes) -> None:
        self._receive(data)


def peer_name(address: tuple[str, int] | tuple[str, int, int, int] | None) -> str:
    """A client's address in gRPC's format, for example `ipv4:127.0.0.1:53412` or `ipv6:%5B::1%5D:53412`."""
    if not address:
        return ""
    host, port = address[:2]
    return f"ipv6:{quote(f'[{host}]', ':')}:{port}" if ":" in host else f"ipv4:{host}:{port}"
