"""An HTTP connection within its limits: heads that are too large or too slow, bodies that never end, clients that do not read.

uvicorn bounds none of these. What has taken too long is found by a look at all connections once a second, so that a
request costs no timer.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from convoy.errors import InvalidInput
from serve.config import Limits
from serve.http_body import Scope
from serve.http_cycle import MOST_BYTES, SmallCycle

WATCH = "convoy.watch"  # key of the scope under which a waiting request can be told that its client has gone
MALFORMED = b"malformed HTTP request"


class Phase(Enum):
    """What is expected of the client."""

    IDLE = 0
    HEAD = 1
    BODY = 2
    ANSWER = 3  # to read it


class Room:
    """Bytes of bodies whose requests are not answered yet, over all connections."""

    def __init__(self) -> None:
        self.taken = 0


class Connection(HttpToolsProtocol):
    """uvicorn's connection, which also tells the waiting request when its client leaves, and errs in JSON."""

    def __init__(self, limits: Limits, room: Room, is_hot: Callable[[bytes], bool], **rest: Any) -> None:
        super().__init__(**rest)
        self._limits = limits
        self._room = room
        self._body = 0  # bytes that this connection has of the room
        self._is_hot = is_hot  # whether a POST to this URL is answered by a model
        self._phase = Phase.IDLE
        self._since = self.loop.time()  # when the phase began; a body's time counts from its head's first byte
        self._read = 0  # bytes of the last read
        self._head = 0  # bytes of a head that has not ended, after those that it began with
        self._unread = 0  # bytes of answers that wait for the client, as last seen
        self._stuck_since = self._since
        self._refusal: tuple[bytes, bytes] | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._leave_room()
        cycle = cast("RequestResponseCycle | None", self.cycle)  # uvicorn types it as always there
        if cycle is not None:
            watch = cast(Scope, cycle.scope).get(WATCH)
            if watch is not None:
                watch.client_gone()

    def data_received(self, data: bytes) -> None:
        self._read = len(data)
        if self._phase is Phase.HEAD:
            self._head += self._read
        super().data_received(data)
        if self._phase is Phase.HEAD and self._head > self._limits.header_bytes:
            self._refuse(b"431 Request Header Fields Too Large", self._too_large())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._phase, self._since, self._head = Phase.HEAD, self.loop.time(), 0

    def on_headers_complete(self) -> None:
        if len(self.headers) > self._limits.headers or self._head_bytes() > self._limits.header_bytes:
            self._refusal = (b"431 Request Header Fields Too Large", self._too_large())
            raise InvalidInput("head too large")  # ends the parser, which then asks for send_400_response
        self._phase = Phase.BODY
        if not self._takes_small_cycle():
            super().on_headers_complete()
            return
        scope = cast(Scope, self.scope)
        scope.update(method="POST", path=self.url.decode(), raw_path=self.url, query_string=b"")
        small = SmallCycle(scope, self.transport, self.flow, self.on_response_complete, self.cycle)
        self.cycle = cast(RequestResponseCycle, small)  # has what uvicorn's protocol asks of one

    def on_body(self, body: bytes) -> None:
        self._body += len(body)
        self._room.taken += len(body)
        if self._room.taken > self._limits.bodies_bytes:
            self._leave_room()  # at once: others must not be refused for what goes
            self._refuse(b"503 Service Unavailable", b"too many bodies at a time, limits.bodies_bytes; retry")
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._phase = Phase.ANSWER
        cycle: RequestResponseCycle | SmallCycle = self.cycle
        if not isinstance(cycle, SmallCycle):
            super().on_message_complete()
        elif cycle.may_start():
            self._start_asgi_task(cast(RequestResponseCycle, cycle), self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cast(RequestResponseCycle, cycle), self.app))

    def on_response_complete(self) -> None:
        """What uvicorn does, but for its timer of idle connections: `check_time` ends them."""
        self.server_state.total_requests += 1
        self._leave_room()
        if self._phase is Phase.ANSWER:
            self._phase, self._since = Phase.IDLE, self.loop.time()
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())

    def _leave_room(self) -> None:
        self._room.taken -= self._body
        self._body = 0

    def _takes_small_cycle(self) -> bool:
        parser = self.parser
        if not self._is_hot(self.url) or parser.get_method() != b"POST" or parser.get_http_version() != "1.1":
            return False
        if self.expect_100_continue or not parser.should_keep_alive():
            return False
        if self.limit_concurrency is not None and len(self.connections) >= self.limit_concurrency:
            return False
        lengths = [int(value) for name, value in self.headers if name == b"content-length"]
        return bool(lengths) and lengths[0] <= MOST_BYTES

    def _head_bytes(self) -> int:
        """At least as many as the head has when they are few, else the bytes of its names and values."""
        arrived = self._read + self._head
        if arrived <= self._limits.header_bytes:
            return arrived
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    def send_400_response(self, msg: str) -> None:
        self._refuse(*(self._refusal or (b"400 Bad Request", MALFORMED)))

    def check_time(self, now: float) -> None:
        """Ends the connection when its client has taken too long."""
        limits, waited = self._limits, now - self._since
        if self._phase is Phase.IDLE and waited > limits.idle_seconds:
            self.transport.close()
        elif self._phase is Phase.HEAD and waited > limits.header_seconds:
            self._refuse(b"408 Request Timeout", b"the head of the request did not arrive within limits.header_seconds")
        elif self._phase is Phase.BODY and waited > max(limits.header_seconds, limits.deadline_ms / 1000):
            self._refuse(b"408 Request Timeout", b"the body of the request did not arrive within limits.deadline_ms")
        self._check_reading(now)

    def _check_reading(self, now: float) -> None:
        """A client that takes nothing of its answer keeps it in our memory."""
        unread = self.transport.get_write_buffer_size()
        if not unread or unread != self._unread:
            self._unread, self._stuck_since = unread, now
        elif now - self._stuck_since > self._limits.idle_seconds:
            self.transport.abort()

    def _refuse(self, status: bytes, reason: bytes) -> None:
        """Says why, where no other answer is due or under way, and closes."""
        cycle = cast("RequestResponseCycle | None", self.cycle)
        ours = self._phase is Phase.BODY and cycle is not None and not cycle.response_started
        if ours or (self._phase is not Phase.BODY and (cycle is None or cycle.response_complete)):
            body = b'{"error":"' + reason + b'"}'
            head = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
            self.transport.write(head % (status, len(body)) + body)
        self.transport.close()

    def _too_large(self) -> bytes:
        limits = self._limits
        return b"more than %d bytes or %d headers; limits.header_bytes and limits.headers" % (
            limits.header_bytes,
            limits.headers,
        )
