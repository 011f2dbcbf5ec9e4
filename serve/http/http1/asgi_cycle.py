"""One request as an ASGI application sees it (ASGI 3.0, HTTP 2.3): scope, `receive` and `send`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import unquote

from httptools import HttpParserError, parse_url
from starlette.types import ASGIApp

from serve.http.body import Message
from serve.http.caller import RequestScope
from serve.http.http1.head import BadRequest, Head
from serve.http.responses import CLOSE, FAULT_BODY, FAULT_HEADERS, INTERIM, response_head

if TYPE_CHECKING:
    from serve.http.http1.connection import Connection

HIGH_WATER_BYTES = 64 * 1024  # of a body that the application has not received; reading pauses beyond
UNTIL_CLOSE = -1
BODILESS = frozenset({204, 304})  # responses without a body and its framing (RFC 9112, section 6.3)

log = logging.getLogger("convoy.http")


class Peers(NamedTuple):
    """The addresses of a connection; None where there is none, as for a Unix socket."""

    client: tuple[str, int] | None
    server: tuple[str, int] | None
    scheme: Literal["http", "https"]

    @staticmethod
    def of(transport: asyncio.Transport) -> Peers:
        scheme: Literal["http", "https"] = "https" if transport.get_extra_info("sslcontext") else "http"
        client, server = (_address(transport.get_extra_info(name)) for name in ("peername", "sockname"))
        return Peers(client, server, scheme)


def _address(name: Any) -> tuple[str, int] | None:
    return (str(name[0]), int(name[1])) if isinstance(name, tuple) else None


class AsgiCycle:
    """A request that an ASGI application answers in a task. Its body arrives while the application runs."""

    def __init__(self, connection: Connection, head: Head, began: float) -> None:
        """`began`: time of the request's first byte, on the loop's clock. Raises BadRequest for a malformed target."""
        self._connection = connection
        self._scope = _scope(head, connection.peers, began)
        self._version = head.version
        self._is_head = head.method == b"HEAD"
        self._keep_alive = head.keep_alive
        self._expects = head.expects  # the client waits for "100 Continue"
        self._changed = asyncio.Event()  # more of the body, its end, the end of the response, or a disconnect
        self._body = bytearray()  # arrived, and not received by the application
        self._ended = False  # the body has arrived completely
        self._received = False  # and the application has received it
        self._disconnected = False
        self._head: bytes | None = None  # of the response, until its first piece of body is sent with it
        self._chunked = False  # the response
        self._left = 0  # bytes of its body still to come, if it is of known length
        self._responded = False
        self._task: asyncio.Task[None] | None = None
        self._begun = False  # the response

    @property
    def may_send_interim(self) -> bool:
        """Whether the client understands an interim response now."""
        return not self._begun and self._version != "1.0"

    @property
    def is_tracked(self) -> bool:
        """Whether the application counts the request for a model."""
        return self._scope.context is not None

    def start(self, app: ASGIApp) -> None:
        """Runs the application in a task."""
        self._task = asyncio.get_running_loop().create_task(self._run(app))

    def add(self, piece: bytes) -> None:
        """A piece of the body has arrived."""
        self._body += piece
        if len(self._body) > HIGH_WATER_BYTES:
            self._connection.flow.pause_reading()
        self._changed.set()

    def end(self) -> None:
        """The body has arrived completely."""
        self._ended = True
        self._changed.set()

    def disconnect(self) -> None:
        """The client has gone: drops what the application still sends, and ends its wait for a model."""
        self._disconnected = True
        self._changed.set()
        if self._scope.context is not None:
            self._scope.context.cancel()

    def abandon(self) -> bool:
        """Ends the request, as if the client had gone. Returns whether the response had begun."""
        self.disconnect()
        return self._begun

    def cancel(self) -> None:
        """Cancels the application."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self, app: ASGIApp) -> None:
        try:
            await app(self._scope, self._receive, self._send)
            if not self._responded and not self._disconnected:
                raise RuntimeError("the application ended without a complete response")
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and self._connection.transport.is_closing():
                raise  # the server stops
            log.exception("a request failed")
            if self._responded:  # the connection may already have its next request
                return
            if self._begun:
                self._connection.transport.close()
            else:
                await self._send({"type": "http.response.start", "status": 500, "headers": FAULT_HEADERS})
                await self._send({"type": "http.response.body", "body": FAULT_BODY})

    async def _receive(self) -> Message:
        if self._expects and not self._begun and not self._disconnected:
            self._expects = False
            self._connection.transport.write(INTERIM)
        while not (self._body or self._disconnected or self._responded or (self._ended and not self._received)):
            self._changed.clear()
            if not self._ended:
                self._connection.flow.resume_reading()
            await self._changed.wait()
        if self._disconnected or self._responded:
            return {"type": "http.disconnect"}
        body, self._body = bytes(self._body), bytearray()
        self._received = self._ended
        return {"type": "http.request", "body": body, "more_body": not self._ended}

    async def _send(self, message: Message) -> None:
        flow = self._connection.flow
        if flow.write_paused and not self._disconnected:
            await flow.drain()
        if self._disconnected:
            return
        if message["type"] == "http.response.start" and not self._begun:
            self._begin(message["status"], message.get("headers", []))
        elif message["type"] == "http.response.body" and self._begun and not self._responded:
            self._write(message.get("body", b""), message.get("more_body", False))
        else:
            raise RuntimeError(f"{message['type']} is not expected now")

    def _begin(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        sent = [(name.lower(), value) for name, value in headers]
        found = dict(sent)
        length = found.get(b"content-length")
        keep_alive = self._keep_alive and not self._connection.closes
        keep_alive = keep_alive and b"close" not in found.get(b"connection", b"").lower()
        chunked, left = False, 0
        if self._is_head or status in BODILESS:
            pass
        elif length is not None:
            left = int(length)
        elif self._version == "1.0":
            left, keep_alive = UNTIL_CLOSE, False
        else:
            chunked = True
            sent.append((b"transfer-encoding", b"chunked"))
        if not keep_alive and b"connection" not in found:
            sent.append(CLOSE)
        elif keep_alive and self._version == "1.0":
            sent.append((b"connection", b"keep-alive"))
        self._head = response_head(status, sent)
        self._begun, self._keep_alive, self._chunked, self._left = True, keep_alive, chunked, left

    def _write(self, body: bytes, more: bool) -> None:
        written = self._head or b""
        self._head = None
        if self._chunked:
            written += b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            written += b"" if more else b"0\r\n\r\n"
        elif not self._is_head:
            if 0 <= self._left < len(body) or (not more and self._left > len(body)):
                raise RuntimeError("the body of the response has not the length that its head declares")
            self._left -= len(body) if self._left >= 0 else 0
            written += body
        self._connection.transport.write(written)
        if not more:
            self._responded = True
            self._changed.set()
            self._connection.responded(self._keep_alive)


def _scope(head: Head, peers: Peers, began: float) -> RequestScope:
    try:
        url = parse_url(head.target)
    except HttpParserError as error:
        raise BadRequest(400, b"malformed target") from error
    path = url.path or b"/"
    scope = RequestScope(
        type="http",
        asgi={"version": "3.0", "spec_version": "2.3"},
        http_version=head.version,
        method=head.method.decode(),
        scheme=peers.scheme,
        path=unquote(path.decode("ascii")),
        raw_path=path,
        query_string=url.query or b"",
        root_path="",
        headers=head.fields,
        client=peers.client,
        server=peers.server,
    )
    scope.began, scope.context = began, None
    return scope
