"""ASGI for small requests to models: the application starts when the last byte has arrived and responds in one write.

uvicorn's own cycle wakes the application through an event for every piece of a body, and writes head and body separately.
A small body of known length needs neither, and for such requests that costs more than the rest of the listener.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HEADER_VALUE_RE, STATUS_LINE

from serve.http.body import Headers, Message, Scope
from serve.telemetry.request_events import FAULT

log = logging.getLogger("convoy.http")

# Larger bodies use uvicorn's cycle: it applies back-pressure while the body arrives, and the deadline runs from its head.
MAX_BODY_BYTES = 1024 * 1024
FAULT_BODY = b'{"error":"%s"}' % FAULT.encode()
FAULT_HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(FAULT_BODY))]


class HotRoutes(Protocol):
    """The checks of the application that a connection calls before a body has arrived."""

    def is_hot(self, url: bytes) -> bool:
        """Whether a POST to exactly this URL goes to a model."""

    def refuse(self, url: bytes, request_headers: Headers, began: float) -> bytes | None:
        """The complete response to a request that would miss its deadline, None if the request must be read."""


class NoEvent:
    """Replaces the event on which uvicorn's cycle waits for pieces of a body."""

    def set(self) -> None:
        pass


class FastPathCycle:
    """One request, with the attributes that uvicorn's protocol reads of its own cycles. `scope` must have its path."""

    __slots__ = (
        "_pieces", "_received", "disconnected", "flow", "keep_alive", "more_body", "on_response", "response_complete",
        "response_started", "scope", "start", "transport",
    )  # fmt: skip
    message_event = NoEvent()

    def __init__(self, scope: Scope, transport: Any, flow: FlowControl, on_response: Callable[[], None]) -> None:
        self.scope = scope
        self.transport = transport
        self.flow = flow
        self.on_response = on_response
        self._pieces: list[bytes] = []
        self._received = False
        self.more_body = True
        self.keep_alive = True
        self.disconnected = False
        self.response_started = False
        self.response_complete = False
        self.start: Message = {}

    async def run_asgi(self, app: Callable[..., Any]) -> None:
        """Runs the application for this request; its unexpected errors become a 500 and are logged."""
        try:
            await app(self.scope, self.receive, self.send)
        except BaseException:
            log.exception("a request failed")
            if not self.response_complete:
                self.keep_alive = False
                self._write(500, FAULT_HEADERS, FAULT_BODY)

    def add(self, piece: bytes) -> None:
        """Appends a piece of the body."""
        self._pieces.append(piece)

    async def receive(self) -> Message:
        """ASGI receive: the complete body the first time, then a disconnect."""
        if self._received or self.disconnected:
            return {"type": "http.disconnect"}
        body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._received, self._pieces = True, []
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: Message) -> None:
        """ASGI send: a start, then exactly one body."""
        if message["type"] == "http.response.start":
            self.start = message
            return
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        self._write(self.start["status"], self.start["headers"], message["body"])

    def _write(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        if HEADER_VALUE_RE.search(b"".join([value for _, value in headers])):
            raise ValueError("a response header has control characters")  # it could add headers or end the head
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
