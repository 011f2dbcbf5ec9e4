"""Responses compressed with gzip or deflate, if the client accepts it (RFC 9110, section 12.5.3)."""

from __future__ import annotations

import asyncio
import zlib
from functools import lru_cache

from serve.http.body import WINDOW_BITS
from serve.http.body import Headers as RequestHeaders
from serve.http.responses import Headers

ACCEPT_ENCODING = b"accept-encoding"
OFFERED = (b"gzip", b"deflate")
WORTHWHILE_BYTES = 1024  # for smaller bodies the extra header and the time cost more than the bytes saved
INLINE_BYTES = 64 * 1024  # larger bodies are compressed on a thread, because they would block the event loop
FAST = 1  # zlib level


async def encode_answer(request_headers: RequestHeaders, body: bytes, headers: Headers) -> bytes:
    """Compresses the body if the client accepts it, and then adds the encoding to `headers`."""
    accepted = request_headers.get(ACCEPT_ENCODING)
    encoding = None if accepted is None else choose_encoding(accepted, len(body) >= WORTHWHILE_BYTES)
    if encoding is None:
        return body
    headers.append((b"content-encoding", encoding))
    headers.append((b"vary", ACCEPT_ENCODING))
    if len(body) <= INLINE_BYTES:
        return compress(body, encoding)
    return await asyncio.get_running_loop().run_in_executor(None, compress, body, encoding)


@lru_cache(maxsize=256)
def choose_encoding(accepted: bytes, worthwhile: bool) -> bytes | None:
    """The first offered encoding that an Accept-Encoding header allows, None for no compression.

    A single encoding, as Triton's clients send, is an explicit request and is used for small bodies too. A list, as browsers
    send, lists the encodings that the client can read.
    """
    weights: dict[bytes, float] = {}
    for part in accepted.lower().split(b","):
        name, _, weight = part.partition(b";q=")
        weights[name.strip()] = _weight(weight)
    if not worthwhile and len(weights) > 1:
        return None
    return next((name for name in OFFERED if weights.get(name, 0) > 0), None)


def _weight(text: bytes) -> float:
    try:
        return float(text or b"1")
    except ValueError:
        return 0.0


def compress(body: bytes, encoding: bytes) -> bytes:
    """Compresses `body` as gzip, or as deflate (zlib format, RFC 1950)."""
    deflater = zlib.compressobj(FAST, wbits=WINDOW_BITS[encoding])
    return deflater.compress(body) + deflater.flush()
