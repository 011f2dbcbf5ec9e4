"""A plain request to a model, answered without ASGI, without a task, and with one write.

The application's coroutine is stepped by whoever has news for it: the connection starts it when the body has arrived, and
the batch that holds its rows resumes it with the answer. Only if it waits for anything else does it go on in a task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from serve import eager
from serve.batching.queue_item import QueueItem
from serve.gateway.request_context import RequestContext
from serve.http.body import Headers
from serve.http.exchange import ModelApp, ResponseHeaders
from serve.http.http1.head import Head

if TYPE_CHECKING:
    from serve.http.http1.connection import Connection


class HotRequest:
    """One plain request, as `serve.http.exchange.Exchange`. Its body has arrived."""

    __slots__ = (
        "_body",
        "_connection",
        "_models",
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

    def __init__(self, connection: Connection, models: ModelApp, head: Head, body: bytes, began: float) -> None:
        self.headers: Headers = head.headers
        self.began = began
        self.client = connection.peers.client
        self.context: RequestContext | None = None
        self._connection = connection
        self._models = models
        self._target = head.target
        self._body = body
        self._work: Coroutine[Any, Any, None] | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts to answer the request; returns when that waits for something, or is done."""
        self._work = self._models.answer(self._target, self)
        self._step()

    def _step(self) -> None:
        assert self._work is not None
        try:
            waits_for = self._work.send(None)
        except StopIteration:
            pass
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 the boundary of a request
            self._connection.fail(error)
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
            self._connection.fail(error)
            if not isinstance(error, Exception):
                raise

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
        connection.respond(status, headers, body)

    async def refuse_unread(self, status: int, headers: ResponseHeaders, body: bytes) -> None:
        """As `respond`, since the body of a hot request has always been read."""
        await self.respond(status, headers, body)
