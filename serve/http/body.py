"""Request bodies over HTTP: read within limits and decompressed within limits."""

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

MOST_DIGITS = 20  # of a length: 2^64 has as many, and `int` raises ValueError beyond 4300
WINDOW_BITS = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}


class UnreadBody(TooLarge):
    """The body is larger than allowed, and was not read to its end."""


def whole_number(digits: bytes) -> int | None:
    """The number that decimal digits say, None for anything else and for more than `MOST_DIGITS` of them."""
    return int(digits) if digits.isdigit() and len(digits) <= MOST_DIGITS else None


async def read_body(headers: Headers, receive: Receive, limit: int) -> bytes:
    """The whole body, decompressed. Raises TooLarge before it is kept, Cancelled when the client leaves."""
    declared = whole_number(headers.get(b"content-length", b""))
    if declared is not None and declared > limit:
        raise UnreadBody(f"body of {declared} bytes; the limit is {limit}")
    message = await receive()
    body: bytes = message.get("body", b"")
    if message.get("more_body"):
        body = await _read_rest(body, receive, limit)
    elif message["type"] == "http.disconnect":
        raise Cancelled("the client left before the end of its request")
    encoding = headers.get(b"content-encoding")
    if encoding is None:
        return body
    return await asyncio.to_thread(decompress, body, encoding.strip().lower(), limit)  # a small body may be a large one


async def _read_rest(first: bytes, receive: Receive, limit: int) -> bytes:
    pieces, total, more = [first], len(first), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Cancelled("the client left before the end of its request")
        pieces.append(message.get("body", b""))
        total += len(pieces[-1])
        more = message.get("more_body", False)
        if total > limit:
            raise (UnreadBody if more else TooLarge)(f"body of more than {limit} bytes, the limit")
    return b"".join(pieces)


def decompress(body: bytes, encoding: bytes, limit: int) -> bytes:
    """A gzip or deflate body in the clear. Raises TooLarge as soon as the result passes the limit."""
    if encoding == b"identity":
        return body
    if encoding not in WINDOW_BITS:
        name = encoding[:40].decode("latin-1")
        raise UnsupportedEncoding(f"Content-Encoding {name!r} is not known; use gzip or deflate")
    inflater = zlib.decompressobj(WINDOW_BITS[encoding])
    try:
        clear = inflater.decompress(body, limit + 1)
    except zlib.error as error:
        raise InvalidInput(f"the body is not valid {encoding.decode()}") from error
    if len(clear) > limit:
        raise TooLarge(f"body of more than {limit} bytes after decompression, the limit")
    if not inflater.eof:
        raise InvalidInput(f"the {encoding.decode()} body is cut short")
    return clear
