"""HTTP/2 frames of gRPC, looked at before the native server: it takes messages of any size, and inflates them without bound.

A message that is compressed or too long is refused here, with its status to the client and a reset of its stream to the
server, which never sees it. Header blocks pass as they are, since their compression has a state that both ends share.
Protocols: RFC 9113, RFC 7541 and https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from urllib.parse import quote

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD = Struct(">IBI")  # of a frame: 24 bits of length and 8 of kind, flags, stream
PREFIX = Struct(">BI")  # of a message: whether it is compressed, its length
DATA, HEADERS, RST_STREAM, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 8, 9
END_STREAM, END_HEADERS, PADDED = 1, 4, 8
NO_ERROR, CANCEL = 0, 8
LARGEST_REQUEST_FRAME = 16_384  # the server offers no more
LARGEST_ANSWER_FRAME = 2**24 - 1
MOST_STREAMS = 4096  # of a connection, in the middle of a message or refused: more than the server lets be open
PEER = "x-convoy-peer"  # metadata that tell the server who is at the other end, in gRPC's form
UNIMPLEMENTED, RESOURCE_EXHAUSTED = "12", "8"
STATUS_200 = b"\x88"  # in HPACK's static table
NOTHING = (b"", 0)
COMPRESSED = (
    "compressed messages are not taken over gRPC, because a small one may hold gigabytes; send them without compression "
    "(in tritonclient compression_algorithm=None), or gzip over HTTP"
)


class Broken(Exception):
    """The connection does not speak HTTP/2 as it must, and is to be closed."""


Frame = tuple[int, int, int, bytes]  # kind, flags, stream, and the whole of it


class Frames:
    """Splits what one end of a connection sends into frames."""

    def __init__(self, largest: int, preface: bytes = b"") -> None:
        self._largest = largest
        self._preface = preface
        self._rest = b""

    def split(self, data: bytes) -> Iterator[Frame]:
        """The frames that are complete now. Raises Broken."""
        data = self._rest + data if self._rest else data
        position, end = 0, len(data)
        if self._preface:
            if not self._preface.startswith(data[: len(self._preface)]):
                raise Broken
            if end >= len(self._preface):
                position, self._preface = len(self._preface), b""
            else:
                end = 0
        while end - position >= HEAD.size:
            length_and_kind, flags, stream = HEAD.unpack_from(data, position)
            if length_and_kind >> 8 > self._largest:
                raise Broken
            stop = position + HEAD.size + (length_and_kind >> 8)
            if stop > end:
                break
            yield length_and_kind & 255, flags, stream & 0x7FFFFFFF, data[position:stop]
            position = stop
        self._rest = data[position:]


class Guard:
    """One connection: what its client sends goes through `request`, what the server sends through `answer`."""

    def __init__(self, peer: str, most_bytes: int) -> None:
        """`peer` is the client's address as gRPC names it, `most_bytes` the longest message."""
        self._peer = literal(PEER, peer)
        self._most_bytes = most_bytes
        self._requests = Frames(LARGEST_REQUEST_FRAME, PREFACE)
        self._answers = Frames(LARGEST_ANSWER_FRAME)
        self._open: dict[int, bool] = {}  # streams without the end of their answer, and whether it has begun
        # Of streams in the middle of a message: what is there of its prefix, or how many bytes are still to come.
        self._messages: dict[int, tuple[bytes, int]] = {}
        self._refused: set[int] = set()  # streams whose clients may still be sending
        self._in_block = False  # the server's header block goes on in its next frame, and nothing may come between
        self._waiting: list[bytes] = []  # for the end of that block

    def request(self, data: bytes) -> tuple[bytes, bytes]:
        """What goes on to the server, and what goes back to the client. Raises Broken."""
        onward: list[bytes] = []
        back: list[bytes] = []
        for frame in self._requests.split(data):
            kind, _, stream, raw = frame
            if stream in self._refused:
                self._drop(frame, back)
            elif kind != DATA:
                onward.append(self._pass(frame))
            elif (wrong := self._look(frame)) is None:
                onward.append(raw)
            else:
                onward.append(_frame(RST_STREAM, 0, stream, CANCEL.to_bytes(4, "big")))
                self._refuse(stream, *wrong)
                self._drop(frame, back)
        if len(self._messages) + len(self._refused) > MOST_STREAMS:
            raise Broken
        if self._waiting and not self._in_block:
            back += self._waiting
            self._waiting.clear()
        return b"".join(onward), b"".join(back)

    def answer(self, data: bytes) -> bytes:
        """What goes on to the client. Raises Broken."""
        onward: list[bytes] = []
        for kind, flags, stream, raw in self._answers.split(data):
            if kind == DATA and stream not in self._open:
                continue  # the client has been told that its stream ended
            if kind == RST_STREAM or (flags & END_STREAM and kind in (DATA, HEADERS)):
                self._open.pop(stream, None)
                self._messages.pop(stream, None)
            elif kind == HEADERS and stream in self._open:
                self._open[stream] = True
            if kind in (HEADERS, CONTINUATION):
                self._in_block = not flags & END_HEADERS
            onward.append(raw)
            if self._waiting and not self._in_block:
                onward += self._waiting
                self._waiting.clear()
        return b"".join(onward)

    def _pass(self, frame: Frame) -> bytes:
        """A frame without data. Who sends is added to each header block, in a frame of its own behind it."""
        kind, flags, stream, raw = frame
        if kind == RST_STREAM:
            self._open.pop(stream, None)
            self._messages.pop(stream, None)
        elif kind in (HEADERS, CONTINUATION):
            if kind == HEADERS:
                self._open.setdefault(stream, False)
            if flags & END_HEADERS:
                more = _frame(CONTINUATION, END_HEADERS, stream, self._peer)
                return b"".join((raw[:4], bytes((flags & ~END_HEADERS,)), raw[5:], more))
        return raw

    def _look(self, frame: Frame) -> tuple[str, str] | None:
        """Status and text with which a frame's data are to be refused, None when they are not. Raises Broken."""
        _, flags, stream, raw = frame
        position, stop = HEAD.size, len(raw)
        if flags & PADDED:
            position, stop = position + 1, stop - raw[position] if stop > position else 0
            if stop < position:
                raise Broken
        prefix, left = self._messages.pop(stream, NOTHING)
        while position < stop:
            if left:
                step = min(left, stop - position)
                left -= step
                position += step
                continue
            wanted = PREFIX.size - len(prefix)
            prefix += raw[position : min(position + wanted, stop)]
            position += wanted
            if len(prefix) == PREFIX.size:
                compressed, left = PREFIX.unpack(prefix)
                if compressed:
                    return UNIMPLEMENTED, COMPRESSED
                if left > self._most_bytes:
                    return RESOURCE_EXHAUSTED, f"message of {left} bytes; the limit is {self._most_bytes}"
                prefix = b""
        if (left or prefix) and not flags & END_STREAM:
            self._messages[stream] = prefix, left
        return None

    def _refuse(self, stream: int, status: str, text: str) -> None:
        """Ends a stream with a status, unless the server has ended it already."""
        begun = self._open.pop(stream, None)
        self._refused.add(stream)
        if begun is None:
            return
        head = b"" if begun else STATUS_200 + literal("content-type", "application/grpc")
        told = {"grpc-status": status, "grpc-message": quote(text, " ,;()=_"), "grpc-accept-encoding": "identity"}
        block = head + b"".join(literal(name, value) for name, value in told.items())
        self._waiting.append(_frame(HEADERS, END_HEADERS | END_STREAM, stream, block))
        self._waiting.append(_frame(RST_STREAM, 0, stream, NO_ERROR.to_bytes(4, "big")))

    def _drop(self, frame: Frame, back: list[bytes]) -> None:
        """A frame of a refused stream goes nowhere; the connection's window gets its bytes back. Raises Broken."""
        kind, flags, stream, raw = frame
        if kind in (HEADERS, CONTINUATION):
            raise Broken  # trailers, which no client of gRPC sends, would change the state of the compression
        if kind == DATA and len(raw) > HEAD.size:
            back.append(_frame(WINDOW_UPDATE, 0, 0, (len(raw) - HEAD.size).to_bytes(4, "big")))
        if kind == RST_STREAM or (kind == DATA and flags & END_STREAM):
            self._refused.discard(stream)


def literal(name: str, value: str) -> bytes:
    """A header field that leaves HPACK's state alone (RFC 7541 §6.2.2, never Huffman)."""
    return b"\x00" + _text(name) + _text(value)


def _text(text: str) -> bytes:
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
    return HEAD.pack(len(payload) << 8 | kind, flags, stream) + payload
