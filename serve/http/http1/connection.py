"""One HTTP/1.1 connection with limits: one response per request, in order, however slow or malformed the client is.

Requests take one of two ways. A plain request to a model runs on the connection itself, most of them without a coroutine:
see `serve/http/direct.py` and `serve/http/http1/hot_request.py`. Every other request runs as an ASGI application in a
task: see `serve/http/http1/asgi_cycle.py`. The next request is read when the response to the one before has been sent.
Timeouts are checked for all connections once a second (`Connection.check_time`), because a timer per request would cost
more than the rest of the bookkeeping.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import cast

from serve.http.exchange import ReadyRequest, ResponseHeaders
from serve.http.http1.asgi_cycle import AsgiCycle, Peers
from serve.http.http1.chunked import ChunkedBody
from serve.http.http1.flow import Flow
from serve.http.http1.head import END, BadRequest, Head, parse_head, too_large
from serve.http.http1.hot_request import HotRequest
from serve.http.http1.listener import Listener
from serve.http.http1.phase import BODY, CLOSING, DISCARD, HEAD, IDLE, RESPONSE
from serve.http.responses import (
    CLOSE,
    FAULT_BODY,
    FAULT_HEADERS,
    INTERIM,
    LINGER_SECONDS,
    closing_error,
    response_head,
)
from serve.telemetry.request_events import FAULT

log = logging.getLogger("convoy.http")

PROBE_SECONDS = 0.02  # until the client's system answers a probe; `check_time` looks again
# States in Linux' include/net/tcp_states.h: the client's system has reset the connection, or closed its direction.
TCP_CLOSE, TCP_CLOSE_WAIT = 7, 8
MOST_PROBES = 3  # of a request: clients accept only a few interim responses, Go's five


class Connection(asyncio.Protocol):
    """The connection of a client. Lives on one event loop."""

    transport: asyncio.Transport
    flow: Flow
    peers: Peers

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._limits = listener.limits
        self._loop = asyncio.get_running_loop()
        self._phase = IDLE
        self._since = self._loop.time()  # start of the phase; a body's time counts from the first byte of its head
        self._unread = b""  # the beginning of a head, or what follows the request in progress
        self._blank_since = 0.0  # time of the first blank line that arrived instead of a request; 0: none
        self._head: Head | None = None  # of the hot request whose body arrives
        self._pieces: list[bytes] = []  # of its body
        self._body_left = 0  # bytes still to come of a body of known length
        self._chunks: ChunkedBody | None = None  # set while a chunked body arrives
        self._body_bytes = 0  # this connection's share of the listener's memory for bodies
        self._request: ReadyRequest | AsgiCycle | None = None  # the one in progress
        self._half_closed = False  # the client sends no more
        self._probes = 0  # interim responses that were sent to find out whether the client of this request has gone
        self.closes = False  # whether the response in progress is the last

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.flow = Flow(self.transport)
        self.peers = Peers.of(self.transport)
        self._listener.opened(self)
        if self._listener.stopped:  # accepted while the server stopped
            self.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        self._listener.lost(self)
        self._phase, self._unread = CLOSING, b""
        self._release_body_memory()
        self.flow.resume_writing()
        if self._request is not None:
            self._request.disconnect()

    def pause_writing(self) -> None:
        self.flow.pause_writing()

    def resume_writing(self) -> None:
        self.flow.resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._phase is RESPONSE:
            self._hold(data)
        elif self._phase is not CLOSING:
            if self._unread:
                data, self._unread = self._unread + data, b""
            self._read(data)

    def _read(self, data: bytes) -> None:
        """Reads at most to the end of a request. The rest is read later, so that other connections have their turn."""
        try:
            if self._phase is IDLE or self._phase is HEAD:
                data = self._read_head(data)
            if self._phase is BODY or self._phase is DISCARD:
                data = self._read_body(data)
        except BadRequest as error:
            self._reject(error.status, error.reason)
        except Exception:
            log.exception("a request failed")
            self._reject(500, FAULT.encode())
        else:
            if data:
                self._hold(data)

    def _hold(self, data: bytes) -> None:
        """Keeps bytes until the response in progress is sent, or until the next turn of the event loop if there is none."""
        self._unread = data
        self.flow.pause_reading()
        if self._phase is not RESPONSE:
            self._loop.call_soon(self._resume)

    def _resume(self) -> None:
        if self._phase is not CLOSING:
            data, self._unread = self._unread, b""
            self.flow.resume_reading()
            self._read(data)

    def _read_head(self, data: bytes) -> bytes:
        """Reads a head and begins its request, or keeps the beginning of a head. Returns the bytes after it."""
        stop = data.find(END) + len(END)
        head = self._listener.heads.get(data[:stop])
        if head is None:
            blank = len(data) - len(data.lstrip(b"\r\n"))
            head, stop = self._parse_head(data[blank:] if blank else data)
            if head is None:
                return b""
            stop += blank
        if self._phase is IDLE:
            self._since = self._loop.time()
        self._blank_since = 0.0
        self._begin(head, stop)
        return data[stop:]

    def _parse_head(self, data: bytes) -> tuple[Head | None, int]:
        """The head at the start of `data` and its length; None if it has not arrived completely. Raises BadRequest."""
        if not data:  # blank lines are allowed before a request (RFC 9112, section 2.2)
            self._blank_since = self._blank_since or self._loop.time()
            return None, 0
        if not data[:1].isalpha():  # for example TLS; its client waits for an answer
            raise BadRequest(400, b"malformed HTTP request")
        stop = data.find(END) + len(END)
        if stop >= len(END):
            head = parse_head(data[:stop], self._limits)
            self._listener.heads.add(data[:stop], head)
            return head, stop
        if len(data) > self._limits.header_bytes:
            raise BadRequest(431, too_large(self._limits))
        if self._phase is IDLE:
            self._phase, self._since, self._blank_since = HEAD, self._loop.time(), 0.0
        self._unread = data
        return None, 0

    def _begin(self, head: Head, size: int) -> None:
        """Begins a request whose head of `size` bytes has arrived: refuses it, or prepares to read its body."""
        limits, models = self._limits, self._listener.models
        if len(self._listener.connections) > limits.connections:
            raise BadRequest(503, b"too many connections (limits.connections); retry later")
        self._body_left = head.length
        if head.simple and head.length <= limits.body_bytes and models.is_hot(head.target):
            refusal = None if self.flow.write_paused else models.refuse(head.target, head.headers, self._since)
            if refusal is not None:
                self.transport.write(refusal)
                self._phase = DISCARD
                return
            if head.plain:
                self._head, self._phase = head, BODY
                return
        if head.chunked:
            refusal_error = BadRequest(431, too_large(limits))
            self._chunks = ChunkedBody(size, len(head.fields), limits.header_bytes, limits.headers, refusal_error)
        self._phase = BODY
        cycle = self._request = AsgiCycle(self, head, self._since)
        cycle.start(self._listener.app)

    def _read_body(self, data: bytes) -> bytes:
        """Reads a piece of a body. Returns the bytes after the body."""
        if len(data) == self._body_left and self._head is not None:  # the end of a body, with most heads the body
            self._add(data)
            self._end_body()
            return b""
        if self._chunks is not None:
            piece, size = self._chunks.feed(data)
            rest, complete = data[size:], self._chunks.complete
        else:
            left = self._body_left
            piece, rest = (data, b"") if len(data) <= left else (data[:left], data[left:])
            self._body_left = left = left - len(piece)
            complete = not left
        if piece and self._phase is BODY:
            self._add(piece)
        if complete:
            self._end_body()
        return rest

    def _add(self, piece: bytes) -> None:
        memory, size = self._listener.body_memory, len(piece)
        self._body_bytes += size
        memory.used += size
        if memory.used > self._limits.bodies_bytes:
            self._release_body_memory()  # immediately: other connections must not be refused because of a dropped body
            raise BadRequest(503, b"request memory is full (limits.bodies_bytes); retry later")
        if self._head is not None:
            self._pieces.append(piece)
        elif isinstance(self._request, AsgiCycle):
            self._request.add(piece)

    def _end_body(self) -> None:
        self._chunks = None
        if self._phase is DISCARD:
            self._phase, self._since = IDLE, self._loop.time()
            return
        self._phase = RESPONSE
        if self._head is not None:
            self._start_hot(self._head)
        elif isinstance(self._request, AsgiCycle):
            self.flow.resume_reading()  # the body may have paused it; the end of the connection is noticed only while reading
            self._request.end()

    def _start_hot(self, head: Head) -> None:
        body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._head, self._pieces = None, []
        models = self._listener.models
        if models.is_hot(head.target):
            direct = models.direct(self, head, body, self._since)
            request = self._request = direct or HotRequest(self, models, head, body, self._since)
            request.start()
        else:  # the model has gone since the head arrived
            cycle = self._request = AsgiCycle(self, head, self._since)
            cycle.start(self._listener.app)
            cycle.add(body)
            cycle.end()

    @property
    def client(self) -> tuple[str, int] | None:
        """The client's address and port."""
        return self.peers.client

    def respond(self, status: int, headers: ResponseHeaders, body: bytes) -> None:
        """As `serve.http.exchange.Reply.respond`. Raises ValueError for a header that could add another one."""
        sent = [*headers, (b"content-length", b"%d" % len(body))]
        keep_alive = not self.closes and CLOSE not in headers
        if self.closes and CLOSE not in headers:
            sent.append(CLOSE)
        self.send(response_head(status, sent) + body, keep_alive)

    def send(self, response: bytes, keep_alive: bool) -> None:
        """As `serve.http.exchange.Reply.send`."""
        if not self.transport.is_closing():
            self.transport.write(response)
        self.responded(keep_alive)

    def fail(self, error: BaseException) -> None:
        """As `serve.http.exchange.Reply.fail`."""
        if not (isinstance(error, asyncio.CancelledError) and self.transport.is_closing()):  # else the server ends
            log.error("a request failed", exc_info=error)
        if self._request is not None:
            self.send(response_head(500, FAULT_HEADERS) + FAULT_BODY, keep_alive=False)

    def responded(self, keep_alive: bool) -> None:
        """The complete response to the request in progress has been written."""
        self._request, self._probes = None, 0
        self._release_body_memory()
        if self._phase is CLOSING:
            return
        if not keep_alive or self.closes:
            self._close()
            return
        self._since = self._loop.time()
        self._phase = DISCARD if self._phase is BODY else IDLE
        if self._unread:
            self._loop.call_soon(self._resume)
        elif self._half_closed:
            self.transport.close()
        else:
            self.flow.resume_reading()

    def _release_body_memory(self) -> None:
        self._listener.body_memory.used -= self._body_bytes
        self._body_bytes = 0

    def eof_received(self) -> bool:
        """Keeps the connection open for the response in progress: a client that has closed one direction still reads it."""
        if self._phase is not RESPONSE or self.peers.scheme == "https":
            return False
        self._half_closed = True
        self._probe()
        return True

    def _probe(self) -> None:
        """Finds out whether the client has gone, even if its close is behind bytes that are not read.

        A client that has closed only its own direction looks the same. An interim response, which every client of HTTP/1.1
        must understand (RFC 9110, section 15.2), tells them apart: the system of a client that has gone resets the connection.
        """
        if self.transport.is_closing() or self._request is None or not self._request.may_send_interim:
            return
        if self._probes < MOST_PROBES:
            self._probes += 1
            self.transport.write(INTERIM)
            self._loop.call_later(PROBE_SECONDS, self._check_gone)

    def _check_gone(self) -> int:
        """Aborts the connection if the client's system has reset it. Returns the state of TCP; 0 if unknown."""
        connection = self.transport.get_extra_info("socket")
        if self.transport.is_closing() or connection is None or connection.family == socket.AF_UNIX:
            return 0
        state: int = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        if state == TCP_CLOSE or (state == TCP_CLOSE_WAIT and self.peers.scheme == "https"):
            self.transport.abort()
        return state

    def _check_paused(self) -> None:
        """As `eof_received` for a connection that is not read, of which the event loop reports nothing.

        While a body arrives, its bytes may fill all buffers, so that not even the client's close arrives behind them.
        """
        if self._check_gone() == TCP_CLOSE_WAIT or self._phase is BODY:
            self._probe()

    def shutdown(self) -> None:
        """Closes after the response in progress, or now.

        Requests that the client has pipelined behind it are dropped. The client knows from the `connection: close` of the
        last response that they were not processed, and may send them again (RFC 9112, section 9.6).
        """
        self.closes = True
        if self._phase is not BODY and self._phase is not RESPONSE and self._phase is not CLOSING:
            self._close()

    def _close(self) -> None:
        """Closes once the client has what was written."""
        unread = self.flow.read_paused or self._phase is BODY or self._phase is DISCARD
        self._phase, self._since, self._unread, self._pieces = CLOSING, self._loop.time(), b"", []
        if unread and not self._half_closed:
            self._linger()
        else:
            self.transport.close()

    def _linger(self) -> None:
        """Waits for the client's close: closing while bytes are unread would reset the connection (RFC 9112, section 9.6)."""
        self.flow.resume_reading()
        if not self.transport.can_write_eof():  # TLS
            self.transport.close()
            return
        with contextlib.suppress(OSError):  # the client may have disconnected
            self.transport.write_eof()

    def cancel(self) -> None:
        """Ends the request in progress, and the connection."""
        if self._request is not None:
            self._request.cancel()
        self.transport.abort()

    def check_time(self, now: float) -> None:
        """Closes the connection if its client is too slow. `now`: the event loop's time, in seconds."""
        limits, elapsed = self._limits, now - self._since
        body_time = max(limits.header_seconds, limits.deadline_ms / 1000)
        blank = bool(self._blank_since) and now - self._blank_since > limits.header_seconds
        if self._phase is IDLE and (elapsed > limits.idle_seconds or blank):
            self.transport.close()
        elif self._phase is HEAD and elapsed > limits.header_seconds:
            self._reject(408, b"the head of the request did not arrive within limits.header_seconds")
        elif self._phase is BODY and elapsed > body_time:
            self._reject(408, b"the body of the request did not arrive within limits.deadline_ms")
        elif (self._phase is DISCARD and elapsed > body_time) or (self._phase is CLOSING and elapsed > LINGER_SECONDS):
            self.transport.close()
        elif self.flow.read_paused:
            self._check_paused()
        elif self._half_closed:
            self._check_gone()
        if self.flow.is_stalled(now, limits.idle_seconds):  # its unsent responses would stay in memory
            self.transport.abort()

    def _reject(self, status: int, reason: bytes) -> None:
        """Closes with an error; without one if the response to this request has begun."""
        begun = counted = self._phase is DISCARD
        if isinstance(self._request, AsgiCycle):
            counted = self._request.is_tracked
            begun = self._request.abandon()
        self._phase, self._since, self._unread, self._pieces = CLOSING, self._loop.time(), b"", []
        self._release_body_memory()
        if not begun:
            self.transport.write(closing_error(status, reason))
            if not counted:
                self._listener.count_refusal(str(status))
        self._linger()
