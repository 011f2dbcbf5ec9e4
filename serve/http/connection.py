"""One HTTP/1.1 connection with limits: one response per request, in order, however slow or malformed the client is.

uvicorn limits neither the size of heads and trailers nor how far it reads ahead of the request in progress, and it loses
the body of a request that asks for a protocol upgrade. Timeouts are checked for all connections once a second
(`Connection.check_time`), because a timer per request would cost more than the rest of the bookkeeping.
"""

from __future__ import annotations

import asyncio
import contextlib
from enum import Enum
from typing import Any, NoReturn, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from convoy.errors import InvalidInput
from serve.config.schema import Limits
from serve.http.body import BodyMemory, Headers, Scope, whole_number
from serve.http.caller import RequestScope
from serve.http.chunked import ChunkedBody
from serve.http.fast_path import MAX_BODY_BYTES, FastPathCycle, HotRoutes
from serve.http.responses import LINGER_SECONDS, closing_error

PIECE_BYTES = 4096  # parsed per step while they may contain a head, so that few requests are parsed ahead


class Phase(Enum):
    """What the connection expects next."""

    IDLE = 0  # a request
    HEAD = 1  # the rest of a head
    BODY = 2  # the rest of a body
    RESPONSE = 3  # the application's response
    DISCARD = 4  # the rest of a body whose request is already answered
    CLOSING = 5  # the client's close, once every response is sent


IDLE, HEAD, BODY, RESPONSE, DISCARD, CLOSING = Phase  # globals: attribute access on an Enum class is slow


class Flow(FlowControl):
    """Flow control that stays paused while unparsed bytes are buffered, even if a request asks to resume reading."""

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
    """uvicorn's HTTP connection with limits, JSON errors, and notification of a request whose client disconnects."""

    flow: Flow

    def __init__(self, limits: Limits, body_memory: BodyMemory, routes: HotRoutes, **uvicorn_arguments: Any) -> None:
        super().__init__(**uvicorn_arguments)
        self._limits = limits
        self._body_memory = body_memory
        self._body_bytes = 0  # this connection's share of `body_memory`
        self._routes = routes
        self._blank_since = 0.0  # time of the first blank line that arrived instead of a request; 0: none
        self._refused = False  # whether a request of the current read was refused from its head
        self._phase = IDLE
        self._since = self.loop.time()  # start of the phase; a body's time counts from the first byte of its head
        self._unanswered = 0  # requests without a complete response
        self._unparsed = b""  # bytes behind a request that must be answered first
        self._piece_bytes = 0  # size of the piece being parsed
        self._head_bytes = 0  # size of the head, including the whole piece in which it began
        self._body_left = 0  # bytes still to come of a body of known length
        self._chunks: ChunkedBody | None = None  # set while a chunked body arrives
        self._unsent = 0  # bytes in the write buffer at the last check
        self._stalled_since = self._since
        self._parse_error = (400, b"malformed HTTP request")
        self._final_response: bytes | None = None  # an error after which the connection closes

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = Flow(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._release_body_memory()
        cycle = cast("RequestResponseCycle | None", self.cycle)  # uvicorn types it as always there
        if cycle is not None:
            context = cast(RequestScope, cycle.scope).context
            if context is not None:
                context.cancel()

    def data_received(self, data: bytes) -> None:
        if self._phase is CLOSING:
            return
        self._refused = False
        if self._must_wait():
            self._hold(self._unparsed + data)
        else:
            self._parse(data)

    def _must_wait(self) -> bool:
        """Whether the next bytes belong to a request behind one that is not answered yet."""
        return self._unanswered > (self._phase is BODY)

    def _hold(self, data: bytes) -> None:
        self._unparsed = data
        self.flow.hold()

    def _resume(self) -> None:
        data, self._unparsed = self._unparsed, b""
        self.flow.held = False
        if data:
            self._parse(data)
        self.flow.resume_reading()

    def _parse(self, data: bytes) -> None:
        """Parses up to the first request that must wait, or one piece more: parsed requests take more memory than their bytes."""
        parsed = self._feed(data) if len(data) <= PIECE_BYTES else 0
        if parsed == len(data):
            return
        rest = memoryview(data)[parsed:]
        while rest and self._phase is not CLOSING:
            if self._must_wait():
                self._hold(bytes(rest))
                return
            rest = rest[self._feed(rest[: max(PIECE_BYTES, self._body_left)]) :]

    def _feed(self, piece: bytes | memoryview) -> int:
        """Parses a piece, or its part up to the end of a head that requests an upgrade. Returns the number of bytes parsed."""
        self._piece_bytes = parsed = len(piece)
        if self._phase is HEAD:
            self._head_bytes += parsed
        chunks, headers = self._chunks, self.headers
        try:
            try:
                self.parser.feed_data(piece)
            except HttpParserUpgrade as upgrade:
                parsed = upgrade.args[0]
                self._ignore_upgrade()
        except HttpParserError:
            self._reject(*self._parse_error)
        else:
            if self._phase is HEAD or self._chunks is not None:
                self._check_size(chunks)
            elif self._phase is IDLE and self.headers is headers and not self._blank_since:
                self._blank_since = self.loop.time()
        return parsed

    def _ignore_upgrade(self) -> None:
        """Continues as if the head that was just parsed had no Upgrade field (RFC 9110, section 7.8: a server may ignore it).

        httptools ends such a request with its head and parses the body as the next request. It has no option for that, so
        a new parser reads the head again without the field.
        """
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        since = self._since
        self.parser = HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self.parser.feed_data(b"\r\n".join([*lines, b"", b""]))
        self._since = since

    def _check_size(self, chunks: ChunkedBody | None) -> None:
        """Limits what llhttp buffers without reporting it: unfinished heads, chunk extensions, unfinished trailers."""
        too_large = self._phase is HEAD and self._head_bytes > self._limits.header_bytes + PIECE_BYTES
        if self._chunks is not None:
            if self._chunks is chunks:
                chunks.received(self._piece_bytes)
                too_large = chunks.overhead > self._limits.header_bytes
            else:
                self._chunks.begin()
        if too_large:
            self._reject(431, self._too_large())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._phase, self._since, self._head_bytes = HEAD, self.loop.time(), self._piece_bytes
        self._blank_since = 0.0

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer: trailers are only counted and never merged (RFC 9110, section 6.5.1).

        The headers, including an API key, were already checked when a trailer arrives.
        """
        if self._chunks is None:
            name = name.lower()
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
            self.headers.append((name, value))
            return
        self._chunks.fields += 1
        if self._chunks.fields > self._limits.headers:
            self._stop_parser(431, self._too_large())

    def on_headers_complete(self) -> None:
        if len(self.headers) > self._limits.headers or self._head_size() > self._limits.header_bytes:
            self._stop_parser(431, self._too_large())
        if self.parser.should_upgrade():  # `_ignore_upgrade` parses this head again
            if self.parser.get_method() == b"CONNECT":
                self._stop_parser(501, b"CONNECT is not offered")
            return
        scope = RequestScope(cast(Scope, self.scope))
        scope.began, scope.context = self._since, None
        self.scope = cast(Any, scope)
        fields = dict(self.headers)  # llhttp refuses two lengths, and a length with chunks
        length = whole_number(fields.get(b"content-length", b""))
        hot = length is not None and self._is_hot()
        small = hot and length is not None and length <= MAX_BODY_BYTES
        if hot and length is not None and length <= self._limits.body_bytes and self._refuse_early(fields):
            self._body_left, self._phase = length, DISCARD
            return
        if small:
            scope.update(method="POST", path=self.url.decode(), raw_path=self.url, query_string=b"")
            cycle = FastPathCycle(scope, self.transport, self.flow, self.on_response_complete)
            self.cycle = cast(RequestResponseCycle, cycle)  # has every attribute that uvicorn's protocol uses
        else:
            super().on_headers_complete()
        self._body_left = length or 0
        self._chunks = ChunkedBody(self._fields_size(), len(self.headers)) if b"transfer-encoding" in fields else None
        self._unanswered += 1
        self._phase = BODY

    def on_body(self, body: bytes) -> None:
        if self._chunks is None:
            self._body_left -= len(body)
        else:
            self._chunks.content(len(body))
        if self._phase is DISCARD:
            return
        self._body_bytes += len(body)
        self._body_memory.used += len(body)
        if self._body_memory.used > self._limits.bodies_bytes:
            self._release_body_memory()  # immediately: other connections must not be refused because of a dropped body
            self._stop_parser(503, b"request memory is full (limits.bodies_bytes); retry later")
        cycle: RequestResponseCycle | FastPathCycle = self.cycle
        if isinstance(cycle, FastPathCycle):
            cycle.add(body)
        else:
            super().on_body(body)

    def on_chunk_complete(self) -> None:
        if self._chunks is not None:
            self._chunks.end_chunk()

    def on_message_complete(self) -> None:
        if self._phase is HEAD:  # the head asks for an upgrade: `_ignore_upgrade` parses it again
            return
        self._body_left, self._chunks = 0, None
        if self._phase is DISCARD:
            self._phase, self._since = IDLE, self.loop.time()
            return
        self._phase = RESPONSE
        cycle: RequestResponseCycle | FastPathCycle = self.cycle
        if not isinstance(cycle, FastPathCycle):
            super().on_message_complete()
        elif self._unanswered == 1:
            self._start_asgi_task(cast(RequestResponseCycle, cycle), self.app)
        else:
            self.pipeline.appendleft((cast(RequestResponseCycle, cycle), self.app))

    def on_response_complete(self) -> None:
        """As in uvicorn, without its timer for idle connections: `check_time` closes them."""
        self.server_state.total_requests += 1
        self._unanswered -= 1
        self._since = self.loop.time()
        if not self._unanswered:
            self._release_body_memory()
            if self._phase is RESPONSE:
                self._phase = IDLE
            elif self._phase is BODY:
                self._phase = DISCARD
        if self.transport.is_closing():
            return
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        if self._must_wait():
            return
        if self._final_response is None:
            self._resume()
        else:
            self._close()

    def _release_body_memory(self) -> None:
        self._body_memory.used -= self._body_bytes
        self._body_bytes = 0

    def _is_hot(self) -> bool:
        """Whether a model answers this URL and the request needs no feature of uvicorn's own cycle."""
        parser = self.parser
        if not self._routes.is_hot(self.url) or parser.get_method() != b"POST" or parser.get_http_version() != "1.1":
            return False
        if self.expect_100_continue or not parser.should_keep_alive():
            return False
        return self.limit_concurrency is None or len(self.connections) < self.limit_concurrency

    def _refuse_early(self, fields: Headers) -> bool:
        """Refuses a request, from its head alone, if it would miss its deadline. Returns whether it was refused.

        Only if no earlier response is pending or unsent, since responses keep the order of requests. At most once per
        read: a read may hold thousands of heads, and other connections would wait while they are all refused.
        """
        if self._unanswered or self.flow.write_paused or self._refused:
            return False
        response = self._routes.refuse(self.url, fields, self._since)
        if response is None:
            return False
        self._refused = True
        self.server_state.total_requests += 1
        self.transport.write(response)
        return True

    def _head_size(self) -> int:
        """An upper bound of the head's size if that is within the limit, else the exact size of its names and values."""
        return self._head_bytes if self._head_bytes <= self._limits.header_bytes else self._fields_size()

    def _fields_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    def check_time(self, now: float) -> None:
        """Closes the connection if its client is too slow. `now`: the event loop's time, in seconds."""
        limits, elapsed = self._limits, now - self._since
        body_time = max(limits.header_seconds, limits.deadline_ms / 1000)
        if self._must_wait():
            pass  # the client waits for the response
        elif self._phase is IDLE and (elapsed > limits.idle_seconds or self._sends_only_blank_lines(now)):
            self.transport.close()
        elif self._phase is HEAD and elapsed > limits.header_seconds:
            self._reject(408, b"the head of the request did not arrive within limits.header_seconds")
        elif self._phase is BODY and elapsed > body_time:
            self._reject(408, b"the body of the request did not arrive within limits.deadline_ms")
        elif (self._phase is DISCARD and elapsed > body_time) or (self._phase is CLOSING and elapsed > LINGER_SECONDS):
            self.transport.close()
        self._check_client_reads(now)

    def _sends_only_blank_lines(self, now: float) -> bool:
        """Whether blank lines, allowed before a request (RFC 9112, section 2.2), arrive for longer than a head's time limit."""
        return bool(self._blank_since) and now - self._blank_since > self._limits.header_seconds

    def _check_client_reads(self, now: float) -> None:
        """Aborts a connection whose client stopped reading: its unsent responses would stay in memory."""
        unsent = self.transport.get_write_buffer_size()
        if not unsent or unsent != self._unsent:
            self._unsent, self._stalled_since = unsent, now
        elif now - self._stalled_since > self._limits.idle_seconds:
            self.transport.abort()

    def _stop_parser(self, status: int, reason: bytes) -> NoReturn:
        """Stops the parser from within one of its callbacks. `_feed` then rejects the request with this status."""
        self._parse_error = (status, reason)
        raise InvalidInput(reason.decode())

    def _reject(self, status: int, reason: bytes) -> None:
        """Closes with an error, after all earlier responses. No error if this request's own response has begun."""
        self._final_response = closing_error(status, reason)
        if self._phase is DISCARD or (self._phase is BODY and self._abandon()):
            self._final_response = b""
        self._phase = CLOSING
        self._release_body_memory()
        self.flow.release()
        if not self._unanswered:
            self._close()

    def _abandon(self) -> bool:
        """Ends the request whose body is arriving. Returns whether its response had begun."""
        cycle = self.cycle
        if self.pipeline and self.pipeline[0][0] is cycle:
            self.pipeline.popleft()
        begun = cycle.response_started
        cycle.disconnected = cycle.response_complete = True  # drops everything that its application still sends
        cycle.message_event.set()
        self._unanswered -= 1
        return begun

    def _close(self) -> None:
        """Sends the final response and waits for the client to close. With TLS, or nothing to send, closes at once."""
        self._since = self.loop.time()
        self.transport.write(self._final_response or b"")
        if not self._final_response or not self.transport.can_write_eof():
            self.transport.close()
            return
        with contextlib.suppress(OSError):  # the client may have disconnected
            self.transport.write_eof()

    def _too_large(self) -> bytes:
        text = (
            b"more than %d bytes or %d headers, with chunk extensions and trailers; limits.header_bytes, limits.headers"
        )
        return text % (self._limits.header_bytes, self._limits.headers)
