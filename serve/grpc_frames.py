"""HTTP/2 frames of gRPC, looked at before the native server: it takes messages of any size, and inflates them without bound.

A message that is compressed or too long is refused here, with its status to the client and a reset of its stream to the
server, which never sees it. Header blocks pass as they are, since their compression has a state that both ends share.
Protocols: RFC 9113, RFC 7541 and https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import quote

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD = 9  # bytes of a frame before its payload
PREFIX = 5  # bytes of gRPC before a message: whether it is compressed, and its length
DATA, HEADERS, RST_STREAM, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 8, 9
END_STREAM, END_HEADERS, PADDED = 1, 4, 8
NO_ERROR, CANCEL = 0, 8
LARGEST_REQUEST_FRAME = 16_384  # the server offers no more
LARGEST_ANSWER_FRAME = 2**24 - 1
MOST_STREAMS = 4096  # of a connection, in the middle of a message or refused: more than the server lets be open
PEER = "x-convoy-peer"  # metadata that tell the server who is at the other end, in gRPC's form
UNIMPLEMENTED, RESOURCE_EXHAUSTED = "12", "8"
COMPRESSED = (
    "compressed messages are not taken over gRPC, because a small one may hold gigabytes; send them without compression "
    "(in tritonclient compression_algorithm=None), or gzip over HTTP"
)


class Broken(Exception):
    """The connection does not speak HTTP/2 as it must, and is to be closed."""


class Frame(NamedTuple):
    """A whole frame."""

    kind: int
    flags: int
    stream: int
    raw: bytes


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
        while end - position >= HEAD:
            size = int.from_bytes(data[position : position + 3], "big")
            stop = position + HEAD + size
            if size > self._largest:
                raise Broken
            if stop > end:
                break
            stream = int.from_bytes(data[position + 5 : position + HEAD], "big") & 0x7FFFFFFF
            yield Frame(data[position + 3], data[position + 4], stream, data[position:stop])
            position = stop
        self._rest = data[position:]


class _Message(NamedTuple):
    """How far a stream has come with a message: what is there of its prefix, or the bytes that are still to come."""

    prefix: bytes = b""
    left: int = 0


class Guard:
    """One connection: what its client sends goes through `request`, what the server sends through `answer`."""

    def __init__(self, peer: str, most_bytes: int) -> None:
        """`peer` is the client's address as gRPC names it, `most_bytes` the longest message."""
        self._peer = literal(PEER, peer)
        self._most_bytes = most_bytes
        self._requests = Frames(LARGEST_REQUEST_FRAME, PREFACE)
        self._answers = Frames(LARGEST_ANSWER_FRAME)
        self._open: dict[int, bool] = {}  # streams without the end of their answer, and whether it has begun
        self._messages: dict[int, _Message] = {}  # of streams that are in the middle of one
        self._refused: set[int] = set()  # streams whose clients may still be sending
        self._in_block = False  # the server's header block goes on in its next frame, and nothing may come between
        self._waiting: list[bytes] = []  # for the end of that block

    def request(self, data: bytes) -> tuple[bytes, bytes]:
        """What goes on to the server, and what goes back to the client. Raises Broken."""
        onward: list[bytes] = []
        back: list[bytes] = []
        for frame in self._requests.split(data):
            if frame.stream in self._refused:
                self._drop(frame, back)
            elif frame.kind == DATA:
                status, text = self._look(frame)
                if status:
                    onward.append(_frame(RST_STREAM, 0, frame.stream, CANCEL.to_bytes(4, "big")))
                    self._refuse(frame, status, text)
                    self._drop(frame, back)
                else:
                    onward.append(frame.raw)
            else:
                onward.append(self._pass(frame))
        if len(self._messages) + len(self._refused) > MOST_STREAMS:
            raise Broken
        if not self._in_block:
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

    def _look(self, frame: Frame) -> tuple[str, str]:
        """Status and text with which a frame's data are to be refused; empty: they are not. Raises Broken."""
        raw, position, stop = frame.raw, HEAD, len(frame.raw)
        if frame.flags & PADDED:
            position, stop = HEAD + 1, stop - raw[HEAD] if stop > HEAD else 0
            if stop < position:
                raise Broken
        prefix, left = self._messages.pop(frame.stream, _Message())
        while position < stop:
            if left:
                step = min(left, stop - position)
                left -= step
                position += step
                continue
            wanted = PREFIX - len(prefix)
            prefix += raw[position : min(position + wanted, stop)]
            position += wanted
            if len(prefix) == PREFIX:
                left = int.from_bytes(prefix[1:], "big")
                if prefix[0]:
                    return UNIMPLEMENTED, COMPRESSED
                if left > self._most_bytes:
                    return RESOURCE_EXHAUSTED, f"message of {left} bytes; the limit is {self._most_bytes}"
                prefix = b""
        if (left or prefix) and not frame.flags & END_STREAM:
            self._messages[frame.stream] = _Message(prefix, left)
        return "", ""

    def _refuse(self, frame: Frame, status: str, text: str) -> None:
        """Ends a stream with a status, unless the server has ended it already."""
        begun = self._open.pop(frame.stream, None)
        self._refused.add(frame.stream)
        if begun is None:
            return
        head = b"" if begun else STATUS_200 + literal("content-type", "application/grpc")
        told = {"grpc-status": status, "grpc-message": quote(text, " ,;()=_"), "grpc-accept-encoding": "identity"}
        block = head + b"".join(literal(name, value) for name, value in told.items())
        self._waiting.append(_frame(HEADERS, END_HEADERS | END_STREAM, frame.stream, block))
        self._waiting.append(_frame(RST_STREAM, 0, frame.stream, NO_ERROR.to_bytes(4, "big")))

    def _drop(self, frame: Frame, back: list[bytes]) -> None:
        """A frame of a refused stream goes nowhere; the connection's window gets its bytes back. Raises Broken."""
        if frame.kind in (HEADERS, CONTINUATION):
            raise Broken  # trailers, which no client of gRPC sends, would change the state of the compression
        if frame.kind == DATA and len(frame.raw) > HEAD:
            back.append(_frame(WINDOW_UPDATE, 0, 0, (len(frame.raw) - HEAD).to_bytes(4, "big")))
        if frame.kind == RST_STREAM or (frame.kind == DATA and frame.flags & END_STREAM):
            self._refused.discard(frame.stream)


STATUS_200 = b"\x88"  # of HPACK's static table


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
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload
