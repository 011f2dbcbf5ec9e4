"""Accepts every connection that is pending, because uvloop accepts only one per iteration of its loop.

On a busy loop with iterations of 50 ms, uvloop alone would accept twenty connections a second. All others would wait in the
kernel's backlog, where neither deadlines nor limits apply. So whenever the loop accepts a connection, the acceptor accepts
the pending ones too.
"""

from __future__ import annotations

import asyncio
import select
import socket
import ssl
from collections.abc import Callable
from functools import partial

MAX_PER_TURN = 64  # leaves connections to other processes that listen on the same socket


class Acceptor:
    """Creates a protocol for every connection to a listening socket. Lives on one event loop."""

    def __init__(self, protocol: Callable[[], asyncio.BaseProtocol], context: ssl.SSLContext | None = None) -> None:
        """With a `context`, connections begin with a TLS handshake."""
        self._protocol = protocol
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._server: asyncio.Server | None = None
        self._listener: socket.socket | None = None
        self._pending = select.poll()
        self._scheduled = False
        self._opening: set[asyncio.Task[None]] = set()

    async def start(self, listener: socket.socket, backlog: int) -> None:
        """Starts to accept. The caller closes `listener`, after `close`."""
        self._listener = listener
        self._pending.register(listener, select.POLLIN)
        self._server = await self._loop.create_server(self._accepted, sock=listener, ssl=self._context, backlog=backlog)

    def close(self) -> None:
        """Stops accepting. Open connections stay open."""
        self._listener = None
        if self._server is not None:
            self._server.close()

    async def wait_closed(self) -> None:
        """Cancels connections that are being opened: a client may delay its TLS handshake for a minute."""
        for task in self._opening:
            task.cancel()
        if self._opening:
            await asyncio.wait(self._opening)

    def _accepted(self) -> asyncio.BaseProtocol:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._accept_pending)
        return self._protocol()

    def _accept_pending(self) -> None:
        self._scheduled = False
        for _ in range(MAX_PER_TURN):
            if self._listener is None or not self._pending.poll(0):  # cheaper than an accept that raises
                return
            try:
                connection, _ = self._listener.accept()
            except (
                OSError
            ):  # another process took it, or no file descriptor is free; the loop's own accept reports that
                return
            connection.setblocking(False)
            task = self._loop.create_task(self._open(connection))
            self._opening.add(task)  # the loop keeps only a weak reference
            task.add_done_callback(partial(self._opened, connection))

    async def _open(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol, connection, ssl=self._context)
        except OSError:  # disconnected, no TLS, or no handshake in time
            connection.close()

    def _opened(self, connection: socket.socket, task: asyncio.Task[None]) -> None:
        self._opening.discard(task)
        if task.cancelled():  # perhaps before it began
            connection.close()
