"""Inspects the HTTP/2 frames of gRPC before the native server, which accepts messages of any size and inflates without limit.

A message that is compressed or too long is refused here: the client gets a status, and the server a reset of the stream, so it
never sees the message. Header blocks are forwarded unchanged, because both ends share the state of their compression.
Protocols: RFC 9113 (HTTP/2), RFC 7541 (HPACK) and https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from urllib.parse import quote

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEADER = Struct(">IBI")  # 24 bits of length and 8 of type, flags, stream (RFC 9113, section 4.1)
MESSAGE_PREFIX = Struct(">BI")  # whether the message is compressed, its length
DATA, HEADERS, RST_STREAM, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 8, 9
END_STREAM, END_HEADERS, PADDED = 1, 4, 8
NO_ERROR, CANCEL = 0, 8
LARGEST_REQUEST_FRAME = 16_384  # the native server does not raise SETTINGS_MAX_FRAME_SIZE
INSPECTED = frozenset(
    (DATA, HEADERS, RST_STREAM, CONTINUATION)
)  # types of frames that may not be forwarded as they are
STREAM_BITS = 0x7FFFFFFF  # without the reserved bit, which receivers ignore
MAX_STREAMS = 4096  # of a connection: more than the server lets be open
LARGE = 16_384  # bytes of frames that are forwarded unchanged; fewer are copied, since a piece of their own costs more
MAX_REFUSED = 1024  # refused streams of a connection whose clients may still be sending
PEER = "x-convoy-peer"  # metadata with the client's address for the server, in gRPC's format
UNIMPLEMENTED, RESOURCE_EXHAUSTED = (
    (12, "UNIMPLEMENTED"),
    (8, "RESOURCE_EXHAUSTED"),
)  # gRPC's number and name of a status
STATUS_200 = b"\x88"  # `:status: 200` in HPACK's static table
NO_MESSAGE = (b"", 0)
COMPRESSED = (
    "compressed messages are not accepted over gRPC, because a small one may inflate to gigabytes; send them without "
    "compression (in tritonclient compression_algorithm=None), or gzip over HTTP"
)


class ProtocolError(Exception):
    """The connection violates HTTP/2 and must be closed."""


Status = tuple[int, str]
Pieces = list[bytes | memoryview]
Frame = tuple[int, int, int, bytes]  # type, flags, stream, and the raw bytes with the frame's header


class FrameGuard:
    """One connection: the client's bytes pass through `request`, the server's bytes through `respond`.

    Frames that need no change are forwarded as one piece of the received bytes, since each step costs every request.
    """

    def __init__(self, peer: str, max_bytes: int, count_refusal: Callable[[str], None]) -> None:
        """
        Args:
            peer: the client's address in gRPC's format.
            max_bytes: the largest message accepted.
            count_refusal: called with the name of the status of each call that is refused here.
        """
        self._count_refusal = count_refusal
        self._peer = literal(PEER, peer)
        self._max_bytes = max_bytes
        self._has_preface = False
        self._request_rest = self._response_rest = b""  # the beginning of a frame
        self._last = 0  # the stream that was opened last; the client opens them in ascending order
        self._begun: dict[int, bool] = {}  # streams whose response has not ended: whether it has begun
        # Streams within a message: the bytes of its prefix so far, and the bytes of its content still to come.
        self._partial: dict[int, tuple[bytes, int]] = {}
        # Refused streams, in their order. A client that has got the reset stops without an end of its own, so the oldest
        # ones are forgotten.
        self._refused: dict[int, None] = {}
        self._in_block = False  # whether the server's header block continues: no frame may come in between
        self._queued: list[bytes] = []  # frames for the client that wait for the end of that block

    def request(self, data: bytes) -> tuple[Pieces, bytes]:
        """What to forward to the server, in pieces, and what to send back to the client. Raises ProtocolError."""
        data = self._request_rest + data if self._request_rest else data
        position = kept = 0 if self._has_preface else self._skip_preface(data)
        end = len(data) if self._has_preface else 0
        forward: Pieces = []
        back: list[bytes] = []
        while end - position >= FRAME_HEADER.size:
            length_and_type, flags, stream = FRAME_HEADER.unpack_from(data, position)
            kind, length, stream = length_and_type & 255, length_and_type >> 8, stream & STREAM_BITS
            if length > LARGEST_REQUEST_FRAME:
                raise ProtocolError
            stop = position + FRAME_HEADER.size + length
            if stop > end:
                break
            if kind in INSPECTED and not (kind == DATA and self._passes(data, position, length, flags, stream)):
                frame = kind, flags, stream, data[position:stop]
                forward += (data[kept:position], self._forward(frame, back))
                kept = stop
            position = stop
        self._request_rest = data[position:]
        if len(self._begun) > MAX_STREAMS:
            raise ProtocolError
        if self._queued and not self._in_block:
            back += self._queued
            self._queued.clear()
        if position - kept >= LARGE and forward:  # not copied: the pieces are written one after the other
            return [b"".join(forward), memoryview(data)[kept:position]], b"".join(back)
        return [_joined(forward, data, kept, position)], b"".join(back)

    def _skip_preface(self, data: bytes) -> int:
        """The position behind the connection's preface, or 0 if more of it is to come. Raises ProtocolError."""
        if not PREFACE.startswith(data[: len(PREFACE)]):
            raise ProtocolError
        self._has_preface = len(data) >= len(PREFACE)
        return len(PREFACE) if self._has_preface else 0

    def respond(self, data: bytes) -> bytes:
        """What to forward to the client."""
        data = self._response_rest + data if self._response_rest else data
        begun = self._begun
        position = kept = 0
        end = len(data)
        forward: list[bytes | memoryview] = []
        while end - position >= FRAME_HEADER.size:
            length_and_type, flags, stream = FRAME_HEADER.unpack_from(data, position)
            stop = position + FRAME_HEADER.size + (length_and_type >> 8)
            if stop > end:
                break
            kind = length_and_type & 255
            if kind == DATA and stream not in begun:  # `_refuse` has ended the stream for the client
                forward.append(data[kept:position])
                kept = stop
            elif kind == RST_STREAM or (flags & END_STREAM and kind in (DATA, HEADERS)):
                begun.pop(stream, None)
                self._partial.pop(stream, None)
            elif kind == HEADERS and stream in begun:
                begun[stream] = True
            if kind in (HEADERS, CONTINUATION):
                self._in_block = not flags & END_HEADERS
            position = stop
            if self._queued and not self._in_block:
                forward += (data[kept:position], *self._queued)
                kept = position
                self._queued.clear()
        self._response_rest = data[position:]
        return _joined(forward, data, kept, position)

    def _passes(self, data: bytes, position: int, length: int, flags: int, stream: int) -> bool:
        """Whether a data frame, at `position`, holds one accepted message, or a part of it. False if it must be inspected."""
        if flags & PADDED or stream not in self._begun:
            return False
        partial = self._partial.get(stream)
        if partial is None:
            if length < MESSAGE_PREFIX.size:
                return not length
            compressed, size = MESSAGE_PREFIX.unpack_from(data, position + FRAME_HEADER.size)
            left = size - (length - MESSAGE_PREFIX.size)
            if compressed or size > self._max_bytes or left < 0:
                return False
        else:
            prefix, left = partial
            left -= length
            if prefix or left < 0:
                return False
        if left and not flags & END_STREAM:
            self._partial[stream] = b"", left
        elif partial is not None:
            del self._partial[stream]
        return True

    def _forward(self, frame: Frame, back: list[bytes]) -> bytes:
        """What to forward in place of a frame. Raises ProtocolError."""
        kind, flags, stream, raw = frame
        if stream in self._refused:
            self._discard(frame, back)
            return b""
        if kind == DATA and stream not in self._begun:  # the response has ended: the server reads no more
            _return_window(raw, back)
            return _frame(DATA, END_STREAM, stream, b"") if flags & END_STREAM else b""
        if kind == DATA:
            refusal = self._check_messages(frame)
            if refusal is None:
                return raw
            self._refuse(stream, *refusal)
            self._discard(frame, back)
            return _frame(RST_STREAM, 0, stream, CANCEL.to_bytes(4, "big"))
        if kind == RST_STREAM:
            self._begun.pop(stream, None)
            self._partial.pop(stream, None)
            return raw
        if kind == HEADERS and stream > self._last:
            self._last = stream
            self._begun[stream] = False
        return self._with_peer(frame) if flags & END_HEADERS else raw

    def _with_peer(self, frame: Frame) -> bytes:
        """The last frame of a header block, with the client's address appended to the block."""
        kind, flags, stream, raw = frame
        length = len(raw) - FRAME_HEADER.size + len(self._peer)
        if not flags & PADDED and length <= LARGEST_REQUEST_FRAME:
            return b"".join(
                (FRAME_HEADER.pack(length << 8 | kind, flags, stream), raw[FRAME_HEADER.size :], self._peer)
            )
        more = _frame(CONTINUATION, END_HEADERS, stream, self._peer)
        return b"".join((raw[:4], bytes((flags & ~END_HEADERS,)), raw[5:], more))

    def _check_messages(self, frame: Frame) -> tuple[Status, str] | None:
        """Status and text that refuse the message in a data frame, None if it is accepted. Raises ProtocolError."""
        _, flags, stream, raw = frame
        position, stop = FRAME_HEADER.size, len(raw)
        if flags & PADDED:
            position, stop = position + 1, stop - raw[position] if stop > position else 0
            if stop < position:
                raise ProtocolError
        prefix, left = self._partial.pop(stream, NO_MESSAGE)
        while position < stop:
            if left:
                step = min(left, stop - position)
                left -= step
                position += step
                continue
            missing = MESSAGE_PREFIX.size - len(prefix)
            prefix += raw[position : min(position + missing, stop)]
            position += missing
            if len(prefix) == MESSAGE_PREFIX.size:
                compressed, left = MESSAGE_PREFIX.unpack(prefix)
                if compressed:
                    return UNIMPLEMENTED, COMPRESSED
                if left > self._max_bytes:
                    return RESOURCE_EXHAUSTED, f"message of {left} bytes; the limit is {self._max_bytes}"
                prefix = b""
        if (left or prefix) and not flags & END_STREAM:
            self._partial[stream] = prefix, left
        return None

    def _refuse(self, stream: int, status: Status, text: str) -> None:
        """Ends a stream with a gRPC status."""
        self._count_refusal(status[1])
        begun = self._begun.pop(stream)
        self._refused[stream] = None
        if len(self._refused) > MAX_REFUSED:
            del self._refused[next(iter(self._refused))]
        head = b"" if begun else STATUS_200 + literal("content-type", "application/grpc")
        trailers = {
            "grpc-status": str(status[0]),
            "grpc-message": quote(text, " ,;()=_"),
            "grpc-accept-encoding": "identity",
        }
        block = head + b"".join(literal(name, value) for name, value in trailers.items())
        self._queued.append(_frame(HEADERS, END_HEADERS | END_STREAM, stream, block))
        self._queued.append(_frame(RST_STREAM, 0, stream, NO_ERROR.to_bytes(4, "big")))

    def _discard(self, frame: Frame, back: list[bytes]) -> None:
        """Drops a frame of a refused stream, and returns its bytes to the connection's window. Raises ProtocolError."""
        kind, flags, stream, raw = frame
        if kind in (HEADERS, CONTINUATION):
            raise ProtocolError  # dropping trailers, which no gRPC client sends, would break the HPACK state
        if kind == DATA:
            _return_window(raw, back)
        if kind == RST_STREAM or (kind == DATA and flags & END_STREAM):
            self._refused.pop(stream, None)


def _return_window(raw: bytes, back: list[bytes]) -> None:
    """Returns the bytes of a data frame that is dropped to the connection's window."""
    if len(raw) > FRAME_HEADER.size:
        back.append(_frame(WINDOW_UPDATE, 0, 0, (len(raw) - FRAME_HEADER.size).to_bytes(4, "big")))


def _joined(pieces: list[bytes | memoryview], data: bytes, start: int, stop: int) -> bytes:
    """The pieces and then `data[start:stop]`, copied once at most: it may be large."""
    if not pieces and start == 0 and stop == len(data):
        return data
    return b"".join((*pieces, memoryview(data)[start:stop]))


def literal(name: str, value: str) -> bytes:
    """A header field that leaves the HPACK state unchanged: a literal without indexing (RFC 7541, section 6.2.2)."""
    return b"\x00" + _text(name) + _text(value)


def _text(text: str) -> bytes:
    """A string literal without Huffman coding (RFC 7541, section 5.2); its length has a prefix of 7 bits (section 5.1)."""
    content = text.encode("latin-1")
    length, size = len(content), b""
    if length < 127:
        return bytes((length,)) + content
    length -= 127
    while length > 127:
        size += bytes((length & 127 | 128,))
        length >>= 7
    return b"\x7f" + size + bytes((length,)) + content


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return FRAME_HEADER.pack(len(payload) << 8 | kind, flags, stream) + payload
