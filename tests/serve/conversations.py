"""Sends raw bytes to a server-side HTTP connection over a real socket, each piece in a read of its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import orjson

from serve.config.schema import Limits
from serve.http.body import Headers, Message, Receive, Scope, Send
from serve.http.exchange import Exchange, Reply
from serve.http.http1.connection import Connection
from serve.http.http1.head import Head, join_fields
from serve.http.http1.listener import Listener

HOT = b"/hot"
DEFAULTS = Limits()
PATIENCE = 30.0
TURNS = 4  # iterations of the event loop, enough to read a piece and to run the tasks that it wakes


class Answer(NamedTuple):
    status: int
    document: dict[str, Any]


class Echo:
    """Models that refuse nothing early, and answer what `app` answers, through the exchange."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def is_hot(self, target: bytes) -> bool:
        return target == HOT

    def refuse(self, target: bytes, headers: Headers, began: float) -> None:
        return None

    def direct(self, reply: Reply, head: Head, body: bytes, began: float) -> None:
        return None

    async def answer(self, target: bytes, exchange: Exchange) -> None:
        started: Message = {}

        async def receive() -> Message:
            return {"type": "http.request", "body": await exchange.read_body(1 << 30), "more_body": False}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                started.update(message)
                return
            headers = [header for header in started["headers"] if header[0] != b"content-length"]
            await exchange.respond(started["status"], headers, message["body"])

        await self._app({"path": target.decode(), "headers": list(exchange.headers.items())}, receive, send)


class Conversation:
    """A client's socket, and the server's connection at its other end, which serves `app`."""

    def __init__(self, app: Any, limits: Limits, tcp: bool = False) -> None:
        """`tcp`: a connection of TCP, whose state the server sees, instead of a pair of Unix sockets."""
        self._app = app
        self._limits = limits
        self._tcp = tcp
        self.refusals: list[str] = []  # statuses of the requests that the connection has refused itself

    async def __aenter__(self) -> Conversation:
        loop = asyncio.get_running_loop()
        listener = Listener(self._app, Echo(self._app), self._limits, self.refusals.append)
        make = partial(Connection, listener)
        self.socket, server = tcp_pair() if self._tcp else socket.socketpair()
        self.socket.setblocking(False)
        self.transport, self.connection = await loop.connect_accepted_socket(make, server)
        return self

    async def __aexit__(self, *error: object) -> None:
        self.socket.close()
        if not self.transport.is_closing():
            self.transport.abort()
        await self.turn()

    async def turn(self) -> None:
        """Lets the server read and answer."""
        for _ in range(TURNS):
            await asyncio.sleep(0)

    async def send(self, piece: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.socket, piece)
        await self.turn()

    async def rest(self) -> bytes:
        """Reads until the server closes its side."""
        received = b""
        async with asyncio.timeout(PATIENCE):
            while piece := await asyncio.get_running_loop().sock_recv(self.socket, 1 << 20):
                received += piece
        return received


class Gate:
    """An application that answers once `open` is set. `entered` is set when it has its first request."""

    def __init__(self, reads_body: bool = False) -> None:
        """`reads_body`: it reads the body before it waits, and then sets `read`."""
        self.open, self.read, self.entered = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._reads_body = reads_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.entered.set()
        if self._reads_body:
            while (await receive()).get("more_body"):
                pass
            self.read.set()
        await self.open.wait()
        await echo(scope, receive, send)


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection over the loopback interface."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        return client, listener.accept()[0]


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the path, body and headers of the request."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    headers = {name.decode(): value.decode("latin-1") for name, value in join_fields(scope["headers"]).items()}
    document = orjson.dumps({"path": scope["path"], "body": body.decode("latin-1"), "headers": headers})
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(document))]})
    await send({"type": "http.response.body", "body": document})


def talk(pieces: Sequence[bytes], limits: Limits = DEFAULTS, app: Any = echo, half_close: bool = False) -> list[Answer]:
    """The answers to these bytes, until the server closes. `half_close`: the client then closes its direction."""

    async def run() -> bytes:
        async with Conversation(app, limits) as client:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the server has refused and closed
                for piece in pieces:
                    await client.send(piece)
            if half_close:
                client.socket.shutdown(socket.SHUT_WR)
            return await client.rest()

    return parse_answers(asyncio.run(run()))


def parse_answers(received: bytes) -> list[Answer]:
    """Splits responses by their Content-Length. Interim responses (1xx) are skipped."""
    answers = []
    while received:
        head, _, received = received.partition(b"\r\n\r\n")
        line, *fields = head.split(b"\r\n")
        status = int(line.split(b" ")[1])
        if status >= 200:
            length = next(int(field.split(b":")[1]) for field in fields if field.lower().startswith(b"content-length"))
            assert len(received) >= length
            answers.append(Answer(status, orjson.loads(received[:length])))
            received = received[length:]
    return answers
