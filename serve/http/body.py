"""Request bodies over HTTP: received and decompressed within limits."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from convoy.errors import Cancelled, InvalidInput, TooLarge, UnsupportedEncoding

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = Mapping[bytes, bytes]

MAX_DIGITS = 20  # 2^64 has 20; `int` raises ValueError beyond 4300
WINDOW_BITS = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}  # zlib wbits: +16 expects gzip


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
    encoding = headers.get(b"content-encoding")
    if encoding is None:
        return body
    # Always on a thread: a few compressed bytes may inflate to the limit.
    return await asyncio.to_thread(decompress, body, encoding.strip().lower(), limit)


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


def decompress(body: bytes, encoding: bytes, limit: int) -> bytes:
    """Decompresses a gzip or deflate (zlib) body to at most `limit` bytes.

    Raises TooLarge as soon as the result exceeds the limit, UnsupportedEncoding for another encoding, InvalidInput for a
    damaged or truncated body.
    """
    if encoding == b"identity":
        return body
    if encoding not in WINDOW_BITS:
        name = encoding[:40].decode("latin-1")
        raise UnsupportedEncoding(f"unknown Content-Encoding {name!r}; use gzip or deflate")
    inflater = zlib.decompressobj(WINDOW_BITS[encoding])
    try:
        decompressed = inflater.decompress(body, limit + 1)
    except zlib.error as error:
        raise InvalidInput(f"the body is not valid {encoding.decode()}") from error
    if len(decompressed) > limit:
        raise TooLarge(f"body of more than {limit} bytes after decompression, the limit")
    if not inflater.eof:
        raise InvalidInput(f"the {encoding.decode()} body is truncated")
    return decompressed
