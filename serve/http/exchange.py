"""A request to a model and the way of its response, the same for both paths of the listener."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Sequence
from typing import Any, Protocol

from serve.gateway.request_context import RequestContext
from serve.http.body import Headers, Receive, Send, read_body
from serve.http.caller import RequestScope
from serve.http.http1.flow import Flow
from serve.http.http1.head import Head, join_fields
from serve.http.responses import CLOSE, LINGER_SECONDS

ResponseHeaders = Sequence[tuple[bytes, bytes]]


class Exchange(Protocol):
    """A request to a model, and the way of its response.

    Attributes:
        headers: names in lower case; values of a repeated name are joined by commas.
        query: the query string, without its question mark.
        began: time of the request's first byte, on the event loop's clock.
        client: address and port; None where they are unknown.
        context: None until the application sets it, so that the connection can cancel a request whose client disconnects.
    """

    headers: Headers
    query: bytes
    began: float
    client: tuple[str, int] | None
    context: RequestContext | None

    async def read_body(self, limit: int) -> bytes:
        """The complete body, decompressed; at most `limit` bytes. Raises as `serve.http.body.read_body`."""
        ...

    async def respond(self, status: int, headers: ResponseHeaders, body: bytes) -> None:
        """Sends the complete response; the length of the body is added to `headers`."""
        ...

    async def refuse_unread(self, status: int, headers: ResponseHeaders, body: bytes) -> None:
        """As `respond`, for a request whose body was not read to its end: the connection closes after it."""
        ...


class Reply(Protocol):
    """The way of a response on a connection, without a coroutine.

    Attributes:
        closes: whether the response must be the last.
    """

    closes: bool

    @property
    def client(self) -> tuple[str, int] | None:
        """The client's address and port, None where they are unknown."""
        ...

    @property
    def flow(self) -> Flow:
        """The connection's flow control."""
        ...

    def send(self, response: bytes, keep_alive: bool) -> None:
        """Sends a complete response."""
        ...

    def respond(self, status: int, headers: ResponseHeaders, body: bytes) -> None:
        """Sends a complete response; the length of the body is added to `headers`."""
        ...

    def fail(self, error: BaseException) -> None:
        """Logs the error, sends a fault unless a response was sent, and closes."""
        ...


class ReadyRequest(Protocol):
    """A request that answers itself through its connection, once it is started."""

    may_send_interim: bool

    def start(self) -> None:
        """Starts to answer. Called once."""

    def disconnect(self) -> None:
        """The client has gone."""

    def cancel(self) -> None:
        """Ends the request."""


class ModelApp(Protocol):
    """What a connection calls for requests to models, without ASGI."""

    def is_hot(self, target: bytes) -> bool:
        """Whether a POST to exactly this target goes to a model."""

    def refuse(self, target: bytes, headers: Headers, began: float) -> bytes | None:
        """The complete response to a request that would miss its deadline, None if its body must be read."""

    def direct(self, reply: Reply, head: Head, body: bytes, began: float) -> ReadyRequest | None:
        """A plain request for whose target `is_hot` is true, if it needs no coroutine."""

    def answer(self, target: bytes, exchange: Exchange) -> Coroutine[Any, Any, None]:
        """Answers a POST to a target for which `is_hot` is true."""


class AsgiExchange:
    """A request that came as an ASGI application's, as an `Exchange`."""

    def __init__(self, scope: RequestScope, receive: Receive, send: Send) -> None:
        self.headers: Headers = join_fields(scope["headers"])
        self.query: bytes = scope["query_string"]
        self.began = scope.began
        self.client: tuple[str, int] | None = scope["client"]
        self._scope = scope
        self._receive = receive
        self._send = send

    @property
    def context(self) -> RequestContext | None:
        """The scope's, since the connection looks for it there."""
        return self._scope.context

    @context.setter
    def context(self, context: RequestContext | None) -> None:
        self._scope.context = context

    async def read_body(self, limit: int) -> bytes:
        """As `Exchange.read_body`."""
        return await read_body(self.headers, self._receive, limit)

    async def respond(self, status: int, headers: ResponseHeaders, body: bytes) -> None:
        """As `Exchange.respond`."""
        sent = [*headers, (b"content-length", b"%d" % len(body))]
        await self._send({"type": "http.response.start", "status": status, "headers": sent})
        await self._send({"type": "http.response.body", "body": body})

    async def refuse_unread(self, status: int, headers: ResponseHeaders, body: bytes) -> None:
        """As `Exchange.refuse_unread`. Discards the rest of the body meanwhile: closing would reset the connection too early."""
        sent = [*headers, CLOSE, (b"content-length", b"%d" % len(body))]
        await self._send({"type": "http.response.start", "status": status, "headers": sent})
        await self._send({"type": "http.response.body", "body": body, "more_body": True})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while (await self._receive()).get("more_body"):
                    pass
        await self._send({"type": "http.response.body", "body": b""})
