"""ASGI for small requests to models: they run when their last byte is here, and are answered in one write.

uvicorn's own cycle wakes the application for every piece of a body, with an event, and writes head and body apart. Where the
whole body is small and its length known, none of that is needed, and it costs more than the rest of the listener.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HEADER_VALUE_RE, STATUS_LINE

from serve.http.body import Message, Scope
from serve.telemetry.request_events import FAULT

log = logging.getLogger("convoy.http")

MOST_BYTES = (
    1024 * 1024
)  # beyond, a slow client's time counts while its body comes, and reading stops where it is not taken
FAULT_BODY = b'{"error":"%s"}' % FAULT.encode()
FAULT_HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(FAULT_BODY))]


class NoEvent:
    """Nobody waits for pieces."""

    def set(self) -> None:
        pass


class FastPathCycle:
    """One request, with what uvicorn's protocol needs to know of its own cycles. `scope` must have its path."""

    __slots__ = (
        "_pieces", "_taken", "disconnected", "flow", "keep_alive", "more_body", "on_response", "response_complete",
        "response_started", "scope", "start", "transport",
    )  # fmt: skip
    message_event = NoEvent()

    def __init__(self, scope: Scope, transport: Any, flow: FlowControl, on_response: Callable[[], None]) -> None:
        self.scope = scope
        self.transport = transport
        self.flow = flow
        self.on_response = on_response
        self._pieces: list[bytes] = []
        self._taken = False
        self.more_body = True
        self.keep_alive = True
        self.disconnected = False
        self.response_started = False
        self.response_complete = False
        self.start: Message = {}

    async def run_asgi(self, app: Callable[..., Any]) -> None:
        try:
            await app(self.scope, self.receive, self.send)
        except BaseException:
            log.exception("a request failed")
            if not self.response_complete:
                self.keep_alive = False
                self._write(500, FAULT_HEADERS, FAULT_BODY)

    def add(self, piece: bytes) -> None:
        """A piece of the body has come."""
        self._pieces.append(piece)

    async def receive(self) -> Message:
        """The body, once."""
        if self._taken or self.disconnected:
            return {"type": "http.disconnect"}
        body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._taken, self._pieces = True, []
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: Message) -> None:
        """A head, then the whole body."""
        if message["type"] == "http.response.start":
            self.start = message
            return
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        self._write(self.start["status"], self.start["headers"], message["body"])

    def _write(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        if HEADER_VALUE_RE.search(b"".join([value for _, value in headers])):
            raise ValueError("a header of an answer has control characters")
        self.response_started = self.response_complete = True
        if self.disconnected:
            return
        if (b"connection", b"close") in headers:
            self.keep_alive = False
        elif not self.keep_alive:
            headers = [*headers, (b"connection", b"close")]
        lines = [name + b": " + value for name, value in headers]
        self.transport.write(b"\r\n".join((STATUS_LINE[status][:-2], *lines, b"", body)))
        if not self.keep_alive:
            self.transport.close()
        self.on_response()
