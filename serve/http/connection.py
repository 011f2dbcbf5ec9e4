"""An HTTP connection within its limits: one answer for each request, in turn, whatever a client sends and however slowly.

uvicorn bounds neither heads, nor trailers, nor how far requests are read ahead, and loses the body of a request that
asks for another protocol. What has taken too long is found by a look at all connections once a second, so that a request
costs no timer.
"""

from __future__ import annotations

import asyncio
import contextlib
from enum import Enum
from typing import Any, NoReturn, Protocol, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from convoy.errors import InvalidInput
from serve.config.schema import Limits
from serve.http.body import Headers, Scope, whole_number
from serve.http.caller import RequestScope
from serve.http.chunked import ChunkedBody
from serve.http.fast_path import MOST_BYTES, FastPathCycle

PIECE = 4096  # bytes that are parsed at a time where a head may be among them: no more is read ahead of its turn
LINGER_SECONDS = 5.0  # a close while the client still sends would reset the connection under the last answer
BAD_REQUEST = b"400 Bad Request"
TOO_LARGE = b"431 Request Header Fields Too Large"
TIMEOUT = b"408 Request Timeout"


class Phase(Enum):
    """What is expected of the client."""

    IDLE = 0
    HEAD = 1
    BODY = 2
    ANSWER = 3  # to read it
    REST = 4  # of a body whose request is answered already: it is thrown away
    LEAVING = 5  # to close, once it has its answers


IDLE, HEAD, BODY, ANSWER, REST, LEAVING = Phase  # an attribute of an Enum is slow to read


class Hot(Protocol):
    """What a connection asks of the application before a body has come."""

    def is_hot(self, url: bytes) -> bool: ...

    def refuse(self, url: bytes, asked: Headers, began: float) -> bytes | None: ...


class Room:
    """Bytes of bodies whose requests are not answered yet, over all connections."""

    def __init__(self) -> None:
        self.taken = 0


class Flow(FlowControl):
    """Reads no further while bytes wait that have been read, whichever request asks for more."""

    held = False

    def hold(self) -> None:
        self.held = True
        self.pause_reading()

    def release(self) -> None:
        self.held = False
        self.resume_reading()

    def resume_reading(self) -> None:
        if not self.held:
            super().resume_reading()


class Connection(HttpToolsProtocol):
    """uvicorn's connection, which also tells the waiting request when its client leaves, and errs in JSON."""

    flow: Flow

    def __init__(self, limits: Limits, room: Room, hot: Hot, **rest: Any) -> None:
        super().__init__(**rest)
        self._limits = limits
        self._room = room
        self._body = 0  # bytes that this connection has of the room
        self._hot = hot
        self._blank_since = 0.0  # when empty lines began to come instead of a request, 0: they did not
        self._refused = False  # whether a request of this read was answered from its head
        self._phase = IDLE
        self._since = self.loop.time()  # when the phase began; a body's time counts from its head's first byte
        self._open = 0  # requests whose answers are due
        self._unparsed = b""  # bytes behind a request that waits for its turn
        self._read = 0  # bytes of the last piece
        self._head = 0  # bytes of a head, and of the piece in which it began
        self._due = 0  # bytes of a body of known length that are to come
        self._chunks: ChunkedBody | None = None  # of a chunked body that has not ended
        self._unread = 0  # bytes of answers that wait for the client, as last seen
        self._stuck_since = self._since
        self._refusal = (BAD_REQUEST, b"malformed HTTP request")
        self._goodbye: bytes | None = None  # the last answer, when it is no application's

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = Flow(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._leave_room()
        cycle = cast("RequestResponseCycle | None", self.cycle)  # uvicorn types it as always there
        if cycle is not None:
            context = cast(RequestScope, cycle.scope).context
            if context is not None:
                context.cancel()

    def data_received(self, data: bytes) -> None:
        if self._phase is LEAVING:
            return
        self._refused = False
        if self._is_behind():
            self._hold(self._unparsed + data)
        else:
            self._parse(data)

    def _is_behind(self) -> bool:
        """Whether what comes next has to wait for the answer to a request before it."""
        return self._open > (self._phase is BODY)

    def _hold(self, data: bytes) -> None:
        self._unparsed = data
        self.flow.hold()

    def _read_on(self) -> None:
        data, self._unparsed = self._unparsed, b""
        self.flow.held = False
        if data:
            self._parse(data)
        self.flow.resume_reading()

    def _parse(self, data: bytes) -> None:
        """Parses up to the first request that has to wait, or little more: a parsed request takes more memory than its bytes."""
        parsed = self._feed(data) if len(data) <= PIECE else 0
        if parsed == len(data):
            return
        rest = memoryview(data)[parsed:]
        while rest and self._phase is not LEAVING:
            if self._is_behind():
                self._hold(bytes(rest))
                return
            rest = rest[self._feed(rest[: max(PIECE, self._due)]) :]

    def _feed(self, piece: bytes | memoryview) -> int:
        """Parses a piece, or its part up to the end of a head that asks for another protocol. How many bytes that were."""
        self._read = parsed = len(piece)
        if self._phase is HEAD:
            self._head += parsed
        chunks, before = self._chunks, self.headers
        try:
            try:
                self.parser.feed_data(piece)
            except HttpParserUpgrade as asked:
                parsed = asked.args[0]
                self._ignore_upgrade()
        except HttpParserError:
            self._refuse(*self._refusal)
        else:
            if self._phase is HEAD or self._chunks is not None:
                self._check_size(chunks)
            elif self._phase is IDLE and self.headers is before and not self._blank_since:
                self._blank_since = self.loop.time()
        return parsed

    def _ignore_upgrade(self) -> None:
        """Goes on as if the head that has just ended asked for no other protocol (RFC 9110, section 7.8).

        httptools ends such a request with its head and takes its body for the next request, and cannot be told otherwise.
        So another parser reads the head again, without the field.
        """
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        since = self._since
        self.parser = HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self.parser.feed_data(b"\r\n".join([*lines, b"", b""]))
        self._since = since

    def _check_size(self, chunks: ChunkedBody | None) -> None:
        """What the parser keeps to itself until it is whole."""
        too_large = self._phase is HEAD and self._head > self._limits.header_bytes + PIECE
        if self._chunks is not None:
            if self._chunks is chunks:
                chunks.arrived(self._read)
                too_large = chunks.extra > self._limits.header_bytes
            else:
                self._chunks.begin()
        if too_large:
            self._refuse(TOO_LARGE, self._too_large())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._phase, self._since, self._head = HEAD, self.loop.time(), self._read
        self._blank_since = 0.0

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer: that is never one (RFC 9110, section 6.5.1), since headers were judged before it came."""
        if self._chunks is None:
            name = name.lower()
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
            self.headers.append((name, value))
            return
        self._chunks.fields += 1
        if self._chunks.fields > self._limits.headers:
            self._stop(TOO_LARGE, self._too_large())

    def on_headers_complete(self) -> None:
        if len(self.headers) > self._limits.headers or self._head_bytes() > self._limits.header_bytes:
            self._stop(TOO_LARGE, self._too_large())
        if self.parser.should_upgrade():  # the head comes again, without that
            if self.parser.get_method() == b"CONNECT":
                self._stop(b"501 Not Implemented", b"CONNECT is not offered")
            return
        shared = RequestScope(cast(Scope, self.scope))
        shared.began, shared.context = self._since, None
        self.scope = cast(Any, shared)
        fields = dict(self.headers)  # llhttp refuses two lengths, and a length beside chunks
        length = whole_number(fields.get(b"content-length", b""))
        hot = length is not None and self._is_hot()
        small = hot and length is not None and length <= MOST_BYTES
        if hot and length is not None and length <= self._limits.body_bytes and self._refuse_early(fields):
            self._due, self._phase = length, REST
            return
        if small:
            scope = cast(Scope, self.scope)
            scope.update(method="POST", path=self.url.decode(), raw_path=self.url, query_string=b"")
            cycle = FastPathCycle(scope, self.transport, self.flow, self.on_response_complete)
            self.cycle = cast(RequestResponseCycle, cycle)  # has what uvicorn's protocol asks of one
        else:
            super().on_headers_complete()
        self._due = length or 0
        self._chunks = ChunkedBody(self._named_bytes(), len(self.headers)) if b"transfer-encoding" in fields else None
        self._open += 1
        self._phase = BODY

    def on_body(self, body: bytes) -> None:
        if self._chunks is None:
            self._due -= len(body)
        else:
            self._chunks.content(len(body))
        if self._phase is REST:
            return
        self._body += len(body)
        self._room.taken += len(body)
        if self._room.taken > self._limits.bodies_bytes:
            self._leave_room()  # at once: others must not be refused for what goes
            self._stop(b"503 Service Unavailable", b"too many bodies at a time, limits.bodies_bytes; retry")
        cycle: RequestResponseCycle | FastPathCycle = self.cycle
        if isinstance(cycle, FastPathCycle):
            cycle.add(body)
        else:
            super().on_body(body)

    def on_chunk_complete(self) -> None:
        if self._chunks is not None:
            self._chunks.end_chunk()

    def on_message_complete(self) -> None:
        if self._phase is HEAD:  # it asks for another protocol: the head comes again
            return
        self._due, self._chunks = 0, None
        if self._phase is REST:
            self._phase, self._since = IDLE, self.loop.time()
            return
        self._phase = ANSWER
        cycle: RequestResponseCycle | FastPathCycle = self.cycle
        if not isinstance(cycle, FastPathCycle):
            super().on_message_complete()
        elif self._open == 1:
            self._start_asgi_task(cast(RequestResponseCycle, cycle), self.app)
        else:
            self.pipeline.appendleft((cast(RequestResponseCycle, cycle), self.app))

    def on_response_complete(self) -> None:
        """What uvicorn does, but for its timer of idle connections: `check_time` ends them."""
        self.server_state.total_requests += 1
        self._open -= 1
        self._since = self.loop.time()
        if not self._open:
            self._leave_room()
            if self._phase is ANSWER:
                self._phase = IDLE
            elif self._phase is BODY:
                self._phase = REST
        if self.transport.is_closing():
            return
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        if self._is_behind():
            return
        if self._goodbye is None:
            self._read_on()
        else:
            self._leave()

    def _leave_room(self) -> None:
        self._room.taken -= self._body
        self._body = 0

    def _is_hot(self) -> bool:
        """Whether a model answers, and nothing of this request asks for uvicorn's own cycle."""
        parser = self.parser
        if not self._hot.is_hot(self.url) or parser.get_method() != b"POST" or parser.get_http_version() != "1.1":
            return False
        if self.expect_100_continue or not parser.should_keep_alive():
            return False
        return self.limit_concurrency is None or len(self.connections) < self.limit_concurrency

    def _refuse_early(self, fields: Headers) -> bool:
        """Answers from the head alone a request that would be late. Not where answers before it are due or unread.

        One of a read: thousands of heads come in one, and others wait for the event loop meanwhile.
        """
        if self._open or self.flow.write_paused or self._refused:
            return False
        answer = self._hot.refuse(self.url, fields, self._since)
        if answer is None:
            return False
        self._refused = True
        self.server_state.total_requests += 1
        self.transport.write(answer)
        return True

    def _head_bytes(self) -> int:
        """At least as many as the head has when they are few, else the bytes of its names and values."""
        return self._head if self._head <= self._limits.header_bytes else self._named_bytes()

    def _named_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    def check_time(self, now: float) -> None:
        """Ends the connection when its client has taken too long."""
        limits, waited = self._limits, now - self._since
        for_body = max(limits.header_seconds, limits.deadline_ms / 1000)
        if self._is_behind():
            pass  # it waits for us
        elif self._phase is IDLE and (waited > limits.idle_seconds or self._waits_blank(now)):
            self.transport.close()
        elif self._phase is HEAD and waited > limits.header_seconds:
            self._refuse(TIMEOUT, b"the head of the request did not arrive within limits.header_seconds")
        elif self._phase is BODY and waited > for_body:
            self._refuse(TIMEOUT, b"the body of the request did not arrive within limits.deadline_ms")
        elif (self._phase is REST and waited > for_body) or (self._phase is LEAVING and waited > LINGER_SECONDS):
            self.transport.close()
        self._check_reading(now)

    def _waits_blank(self, now: float) -> bool:
        """Whether empty lines, which may stand before a request (RFC 9112, section 2.2), have come for as long as a head may."""
        return bool(self._blank_since) and now - self._blank_since > self._limits.header_seconds

    def _check_reading(self, now: float) -> None:
        """A client that takes nothing of its answer keeps it in our memory."""
        unread = self.transport.get_write_buffer_size()
        if not unread or unread != self._unread:
            self._unread, self._stuck_since = unread, now
        elif now - self._stuck_since > self._limits.idle_seconds:
            self.transport.abort()

    def _stop(self, status: bytes, reason: bytes) -> NoReturn:
        """Ends the parser, in one of its calls; `_feed` then refuses."""
        self._refusal = (status, reason)
        raise InvalidInput(status.decode())

    def _refuse(self, status: bytes, reason: bytes) -> None:
        """Says why, once the answers before are given and unless this request has its own, and reads no further."""
        body = b'{"error":"' + reason + b'"}'
        head = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
        self._goodbye = head % (status, len(body)) + body
        if self._phase is REST or (self._phase is BODY and self._abandon()):
            self._goodbye = b""
        self._phase = LEAVING
        self._leave_room()
        self.flow.release()
        if not self._open:
            self._leave()

    def _abandon(self) -> bool:
        """Ends the request whose body arrives. Whether its answer had begun."""
        cycle = self.cycle
        if self.pipeline and self.pipeline[0][0] is cycle:
            self.pipeline.popleft()
        begun = cycle.response_started
        cycle.disconnected = cycle.response_complete = True  # whatever its application says is heard by nobody
        cycle.message_event.set()
        self._open -= 1
        return begun

    def _leave(self) -> None:
        """Says goodbye and waits for the client to close, where TLS allows that and there is something to read."""
        self._since = self.loop.time()
        self.transport.write(self._goodbye or b"")
        if not self._goodbye or not self.transport.can_write_eof():
            self.transport.close()
            return
        with contextlib.suppress(OSError):  # the client has gone meanwhile
            self.transport.write_eof()

    def _too_large(self) -> bytes:
        limits = self._limits
        return (
            b"more than %d bytes or %d headers, chunk extensions and trailers among them; "
            b"limits.header_bytes and limits.headers" % (limits.header_bytes, limits.headers)
        )
