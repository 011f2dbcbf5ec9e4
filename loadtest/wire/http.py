"""HTTP/1.1 over asyncio protocols: no coroutine, future or header object per request.

Why not aiohttp: not for speed, since it costs the same CPU per request (docs/loadtest.md; httpx costs far more). A load
generator needs the time of the first byte, requests built in advance, uploads at a limited rate, and an outcome for each
kind of failure.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from time import monotonic
from typing import cast

import httptools

from loadtest.plan import Target
from loadtest.wire import outcomes
from loadtest.wire.calls import Call, Done

SWEEP_S = 0.05
SLOW_PIECES_PER_S = 20


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, pool: HttpTransport) -> None:
        self._pool = pool
        self.call: Call | None = None
        self._transport: asyncio.Transport | None = None
        self._body: list[bytes] = []
        self._json_length: int | None = None
        self._framed = self._complete = False
        self._parser = httptools.HttpResponseParser(self)
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are not subclasses of it

    def send(self, call: Call) -> None:
        self.call = call
        # The server may have closed the connection before its first use or while it was idle.
        if self._transport is None or self._transport.is_closing():
            self._finish(outcomes.RESET, reusable=False)
            return
        if call.upload is None:
            self._transport.write(call.request.data)
            call.written = monotonic()
            return
        self._rest = call.request.data
        self._trickle(call)

    def _trickle(self, call: Call) -> None:
        """Sends one piece of the request and schedules the next: a client with a slow uplink."""
        if self.call is not call or self._transport is None or self._transport.is_closing():
            return
        size = max(1, int((call.upload or 0) / SLOW_PIECES_PER_S))
        self._transport.write(self._rest[:size])
        self._rest = self._rest[size:]
        if self._rest:
            asyncio.get_running_loop().call_later(1 / SLOW_PIECES_PER_S, self._trickle, call)
        else:
            call.written = monotonic()

    def data_received(self, data: bytes) -> None:
        if self.call is None:  # bytes without a request: the connection cannot be used again
            self.abort()
            self._pool.forget(self)
            return
        if not self.call.first:
            self.call.first = monotonic()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._finish(outcomes.MALFORMED, reusable=False)
            return
        if self._complete:  # not in the parser's callback: the parser would swallow errors raised by `_finish`
            self._complete = False
            self._finish(self._status(), reusable=self._parser.should_keep_alive() and not self._rest)

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"inference-header-content-length":
            self._json_length = int(value) if value.isdigit() else None
        elif name in (b"content-length", b"transfer-encoding"):
            self._framed = True

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        self._complete = self._status() >= 200
        if not self._complete:
            self._clear()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self.call is None:
            self._pool.forget(self)
        elif exc is None and self.call.first and not self._framed and self._status():
            self._finish(self._status(), reusable=False)  # an unframed body ends with its connection (RFC 9112, 6.3)
        else:
            self._finish(outcomes.RESET, reusable=False)

    def _status(self) -> int:
        return int(self._parser.get_status_code())

    def _clear(self) -> None:
        self._body, self._json_length, self._framed = [], None, False

    def _finish(self, outcome: int, reusable: bool) -> None:
        call, self.call = self.call, None
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        json_length = self._json_length
        self._clear()
        assert call is not None
        if not reusable:
            self.abort()
        self._pool.finished(self, call, outcome, body, json_length, reusable)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
        self._rest = b""


class HttpTransport:
    """A pool of connections: the most recently used idle one is taken, and a new one is opened when none is idle."""

    def __init__(self, target: Target, done: Done) -> None:
        self.done = done
        self._target = target
        self._loop = asyncio.get_running_loop()
        self._idle: list[Connection] = []
        self._open = 0
        self._waiting: deque[Call] = deque()
        self._calls: dict[int, Call] = {}
        self._connections: dict[int, Connection] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ssl = ssl.create_default_context() if target.url.startswith("https:") else None
        self._address = str(socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)[0][4][0])
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)

    @property
    def in_flight(self) -> int:
        return len(self._calls)

    def start(self, call: Call) -> None:
        call.sent = monotonic()
        self._calls[id(call)] = call
        if self._idle:
            self._assign(self._idle.pop(), call)
        elif self._open < self._target.max_connections:
            self._open += 1
            task = self._loop.create_task(self._connect(call))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            call.waited = True
            self._waiting.append(call)

    def _assign(self, connection: Connection, call: Call) -> None:
        self._connections[id(call)] = connection
        connection.send(call)

    async def _connect(self, call: Call) -> None:
        try:
            host = self._target.host if self._ssl else None
            _, connection = await self._loop.create_connection(
                lambda: Connection(self), self._address, self._target.port, ssl=self._ssl, server_hostname=host
            )
        except OSError:
            self._open -= 1
            if self._end(call, outcomes.CONNECT, b"", None):
                self._next_waiting()
            return
        if id(call) in self._calls:
            self._assign(connection, call)
        else:  # timed out while connecting
            self._release(connection)

    def _next_waiting(self) -> None:
        while self._waiting and self._open < self._target.max_connections:
            call = self._waiting.popleft()
            if id(call) in self._calls:
                self._open += 1
                task = self._loop.create_task(self._connect(call))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                return

    def _release(self, connection: Connection) -> None:
        while self._waiting:
            call = self._waiting.popleft()
            if id(call) in self._calls:
                self._assign(connection, call)
                return
        self._idle.append(connection)

    def forget(self, connection: Connection) -> None:
        """Removes an idle connection that the server has closed."""
        if connection in self._idle:
            self._idle.remove(connection)
            self._open -= 1

    def finished(
        self, connection: Connection, call: Call, outcome: int, body: bytes, json_length: int | None, reusable: bool
    ) -> None:
        if reusable and self._target.keep_alive:
            self._release(connection)
        else:
            connection.abort()
            self._open -= 1
            self._next_waiting()
        self._end(call, outcome, body, json_length)

    def _end(self, call: Call, outcome: int, body: bytes, json_length: int | None) -> bool:
        if self._calls.pop(id(call), None) is None:
            return False
        self._connections.pop(id(call), None)
        self.done(call, outcome, body, json_length)
        return True

    def _sweep(self) -> None:
        """Ends calls that have timed out. The dict is in the order of sending, so the loop stops at the first recent one."""
        limit = monotonic() - self._target.timeout_s
        for call in list(self._calls.values()):
            if call.sent > limit:
                break
            self._abort(call, outcomes.TIMEOUT)
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)

    def _abort(self, call: Call, outcome: int) -> None:
        connection = self._connections.pop(id(call), None)
        if connection is not None:
            connection.call = None
            connection.abort()
            self._open -= 1
        self._end(call, outcome, b"", None)
        if connection is not None:
            self._next_waiting()

    async def close(self) -> None:
        self._sweeper.cancel()
        self._waiting.clear()
        for call in list(self._calls.values()):
            self._abort(call, outcomes.UNFINISHED)
        for connection in self._idle:
            connection.abort()
        self._idle.clear()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
