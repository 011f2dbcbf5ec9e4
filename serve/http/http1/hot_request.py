"""A plain request to a model, answered without ASGI, without a task, and with one write.

The application's coroutine is stepped by whoever has news for it: the connection starts it when the body has arrived, and
the batch that holds its rows resumes it with the answer. Only if it waits for anything else does it go on in a task.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from serve import eager
from serve.batching.queue_item import QueueItem
from serve.gateway.request_context import RequestContext
from serve.http.body import Headers
from serve.http.exchange import ModelApp, ResponseHeaders
from serve.http.http1.head import Head
from serve.http.responses import FAULT_BODY, FAULT_HEADERS, response_head

if TYPE_CHECKING:
    from serve.http.http1.connection import Connection

log = logging.getLogger("convoy.http")


class HotRequest:
    """One plain request, as `serve.http.exchange.Exchange`. Its body has arrived."""

    __slots__ = (
        "_body",
        "_connection",
        "_responded",
        "_target",
        "_task",
        "_work",
        "began",
        "client",
        "context",
        "headers",
    )
    query = b""  # the targets of models have none
    may_send_interim = True

    def __init__(self, connection: Connection, head: Head, body: bytes, began: float) -> None:
        self.headers: Headers = head.headers
        self.began = began
        self.client = connection.peers.client
        self.context: RequestContext | None = None
        self._connection = connection
        self._target = head.target
        self._body = body
        self._work: Coroutine[Any, Any, None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._responded = False

    def start(self, models: ModelApp) -> None:
        """Starts to answer the request; returns when that waits for something, or is done."""
        self._work = models.answer(self._target, self)
        self._step()

    def _step(self) -> None:
        assert self._work is not None
        try:
            waits_for = self._work.send(None)
        except StopIteration:
            pass
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 the boundary of a request
            self._fail(error)
        else:
            if type(waits_for) is QueueItem:
                waits_for.resume = self._step
            else:
                self._task = asyncio.get_running_loop().create_task(self._run(waits_for))

    async def _run(self, waits_for: Any) -> None:
        assert self._work is not None
        try:
            await eager.finish(self._work, waits_for)
        except BaseException as error:
            self._fail(error)
            if not isinstance(error, Exception):
                raise

    def _fail(self, error: BaseException) -> None:
        log.error("a request failed", exc_info=error)
        if not self._responded:
            self._responded = True
            if not self._connection.transport.is_closing():
                self._connection.transport.write(response_head(500, FAULT_HEADERS) + FAULT_BODY)
            self._connection.responded(keep_alive=False)

    def disconnect(self) -> None:
        """The client has gone: ends the wait for a model."""
        if self.context is not None:
            self.context.cancel()

    def cancel(self) -> None:
        """Cancels the work."""
        self.disconnect()
        if self._task is not None:
            # Not now: a task that has not begun would drop the work, and the request would stay counted as in flight.
            asyncio.get_running_loop().call_soon(self._task.cancel)

    async def read_body(self, limit: int) -> bytes:
        """The body; the connection has checked that it is no larger than `limit`."""
        body, self._body = self._body, b""
        return body

    async def respond(self, status: int, headers: ResponseHeaders, body: bytes) -> None:
        """As `serve.http.exchange.Exchange.respond`."""
        connection = self._connection
        if connection.flow.write_paused:
            await connection.flow.drain()
        sent = [*headers, (b"content-length", b"%d" % len(body))]
        asks_to_close = (b"connection", b"close") in headers
        keep_alive = not (connection.closes or asks_to_close)
        if connection.closes and not asks_to_close:
            sent.append((b"connection", b"close"))
        head = response_head(status, sent)
        self._responded = True
        if not connection.transport.is_closing():
            connection.transport.write(head + body)
        connection.responded(keep_alive)

    async def refuse_unread(self, status: int, headers: ResponseHeaders, body: bytes) -> None:
        """As `respond`, since the body of a hot request has always been read."""
        await self.respond(status, headers, body)
