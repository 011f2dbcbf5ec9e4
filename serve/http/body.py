"""Request bodies over HTTP: received and decompressed within limits."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any

from convoy.errors import Cancelled, InvalidInput, TooLarge, UnsupportedEncoding

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = Mapping[bytes, bytes]

MAX_DIGITS = 20  # 2^64 has 20; `int` raises ValueError beyond 4300
GZIP_BITS, ZLIB_BITS, RAW_BITS = 31, 15, -15  # zlib's `wbits`
NO_CODING = (b"", b"identity")
MAX_CODINGS = 2
# Blocked gzip has one member for each 64 KiB. Members without content would keep a thread busy for long.
MAX_MEMBERS = 10_000
PIECE = 64 * 1024  # bytes inflated per call: the rest of a piece is copied at the end of each member


class UnreadBody(TooLarge):
    """The body exceeds the limit and was not read to its end, so the connection cannot be used again."""


class BodyMemory:
    """Memory of all connections' bodies whose requests are not answered yet, in bytes."""

    def __init__(self) -> None:
        self.used = 0


def whole_number(digits: bytes) -> int | None:
    """Parses a decimal number; None for anything but digits, and for more than `MAX_DIGITS` of them."""
    return int(digits) if digits.isdigit() and len(digits) <= MAX_DIGITS else None


async def read_body(headers: Headers, receive: Receive, limit: int) -> bytes:
    """The complete body, decompressed; `limit` in bytes, before and after decompression.

    Raises TooLarge beyond `limit`, Cancelled when the client disconnects, UnsupportedEncoding or InvalidInput for a
    Content-Encoding that is unknown or does not match the body.
    """
    declared = whole_number(headers.get(b"content-length", b""))
    if declared is not None and declared > limit:
        raise UnreadBody(f"body of {declared} bytes; the limit is {limit}")
    message = await receive()
    body: bytes = message.get("body", b"")
    if message.get("more_body"):
        body = await _read_rest(body, receive, limit)
    elif message["type"] == "http.disconnect":
        raise Cancelled("the client disconnected before the end of its request")
    content_encoding = headers.get(b"content-encoding")
    codings = () if content_encoding is None else parse_codings(content_encoding)
    # Always on a thread: a few compressed bytes may inflate to the limit.
    return await asyncio.to_thread(decompress, body, codings, limit) if codings else body


async def _read_rest(first: bytes, receive: Receive, limit: int) -> bytes:
    pieces, total, more = [first], len(first), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Cancelled("the client disconnected before the end of its request")
        pieces.append(message.get("body", b""))
        total += len(pieces[-1])
        more = message.get("more_body", False)
        if total > limit:
            raise (UnreadBody if more else TooLarge)(f"body of more than {limit} bytes, the limit")
    return b"".join(pieces)


def parse_codings(content_encoding: bytes) -> tuple[bytes, ...]:
    """The codings of a body in the order in which they were applied: `gzip` or `deflate` (RFC 9110, section 8.4).

    Raises UnsupportedEncoding for other codings, and for more than `MAX_CODINGS`.
    """
    names = [name.strip(b" \t") for name in content_encoding.lower().split(b",")]
    codings = tuple(b"gzip" if name == b"x-gzip" else name for name in names if name not in NO_CODING)
    for name in codings:
        if name not in (b"gzip", b"deflate"):
            raise UnsupportedEncoding(f"unknown Content-Encoding {name[:40].decode('latin-1')!r}; use gzip or deflate")
    if len(codings) > MAX_CODINGS:
        raise UnsupportedEncoding(f"a body may have at most {MAX_CODINGS} content codings, not {len(codings)}")
    return codings


def decompress(body: bytes, codings: Sequence[bytes], limit: int) -> bytes:
    """Decompresses a body with these codings, as `parse_codings` returns them, to at most `limit` bytes.

    Raises TooLarge as soon as the result of a coding exceeds the limit, InvalidInput for a damaged or truncated body.
    """
    for coding in reversed(codings):
        try:
            body = _inflate(body, coding, limit)
        except zlib.error as error:
            raise InvalidInput(f"the body is not valid {coding.decode()}") from error
    return body


def _inflate(body: bytes, coding: bytes, limit: int) -> bytes:
    """Inflates all members of a gzip body (RFC 1952, section 2.2), or a deflate body. Raises zlib.error too."""
    inflater = zlib.decompressobj(GZIP_BITS if coding == b"gzip" else deflate_bits(body))
    pieces: list[bytes] = []
    size, members = 0, 1
    for start in range(0, len(body), PIECE):
        rest = body[start : start + PIECE]
        while rest:
            if inflater.eof:
                if coding != b"gzip":
                    raise InvalidInput(f"the {coding.decode()} body continues after its end")
                if members == MAX_MEMBERS:
                    raise InvalidInput(f"the gzip body has more than {MAX_MEMBERS} members")
                inflater, members = zlib.decompressobj(GZIP_BITS), members + 1
            pieces.append(inflater.decompress(rest, limit + 1 - size))
            size += len(pieces[-1])
            if size > limit:
                raise TooLarge(f"body of more than {limit} bytes after decompression, the limit")
            rest = inflater.unused_data
    if not inflater.eof:
        raise InvalidInput(f"the {coding.decode()} body is truncated")
    return b"".join(pieces)


def deflate_bits(body: bytes) -> int:
    """zlib's `wbits` for a deflate body, which is in the zlib format, or raw from clients that do not follow the standard.

    The header of zlib (RFC 1950, section 2.2) is no beginning of a raw body: its first bits would be those of a stored block,
    with padding that is not zero (RFC 1951, section 3.2.4). See the note in RFC 9110, section 8.4.1.2.
    """
    is_zlib = len(body) > 1 and body[0] & 15 == zlib.DEFLATED and int.from_bytes(body[:2]) % 31 == 0
    return ZLIB_BITS if is_zlib else RAW_BITS
