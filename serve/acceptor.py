"""Accepts connections, as many as have come: uvloop takes one in each turn of its loop.

On a busy loop whose turns take 50 ms that is twenty a second, and everybody else waits in the kernel, where no deadline
and no limit of ours is seen. So whenever the loop has taken one, the others are taken too.
"""

from __future__ import annotations

import asyncio
import select
import socket
import ssl
from collections.abc import Callable

MOST = 64  # in one turn: another process may listen too


class Acceptor:
    """Makes a protocol for every connection to a listening socket. Lives on one event loop."""

    def __init__(self, protocol: Callable[[], asyncio.BaseProtocol], context: ssl.SSLContext | None = None) -> None:
        """With a `context` connections begin with a TLS handshake."""
        self._protocol = protocol
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._server: asyncio.Server | None = None
        self._listener: socket.socket | None = None
        self._waiting = select.poll()
        self._looking = False
        self._opening: set[asyncio.Task[None]] = set()

    async def start(self, listener: socket.socket, backlog: int) -> None:
        """Begins to accept. `listener` stays the caller's to close, after `close`."""
        self._listener = listener
        self._waiting.register(listener, select.POLLIN)
        self._server = await self._loop.create_server(self._accepted, sock=listener, ssl=self._context, backlog=backlog)

    def close(self) -> None:
        """Accepts nothing more; what is open stays."""
        self._listener = None
        if self._server is not None:
            self._server.close()

    async def wait_closed(self) -> None:
        """Gives up connections that are still being opened: a client may keep a TLS handshake waiting for a minute."""
        for task in self._opening:
            task.cancel()
        if self._opening:
            await asyncio.wait(self._opening)

    def _accepted(self) -> asyncio.BaseProtocol:
        if not self._looking:
            self._looking = True
            self._loop.call_soon(self._accept_others)
        return self._protocol()

    def _accept_others(self) -> None:
        self._looking = False
        for _ in range(MOST):
            if self._listener is None or not self._waiting.poll(0):  # cheaper than an accept that raises
                return
            try:
                connection, _ = self._listener.accept()
            except OSError:  # somebody else took it, or there is no file for it: the loop's own attempt says so
                return
            connection.setblocking(False)
            task = self._loop.create_task(self._open(connection))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol, connection, ssl=self._context)
        except (OSError, asyncio.CancelledError):  # it has gone already, does not speak TLS, or never says anything
            connection.close()
