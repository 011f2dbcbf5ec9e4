"""Answers compressed with gzip or deflate, when the client asks for it."""

from __future__ import annotations

import asyncio
import zlib
from functools import lru_cache

from serve.http.body import WINDOW_BITS
from serve.http.body import Headers as RequestHeaders
from serve.http.responses import Headers

ACCEPT_ENCODING = b"accept-encoding"
OFFERED = (b"gzip", b"deflate")
WORTHWHILE_BYTES = 1024  # below, the header and the time cost more than the bytes saved
INLINE_BYTES = 64 * 1024  # beyond, compressing would hold up everybody else
FAST = 1


async def encode_answer(asked: RequestHeaders, body: bytes, headers: Headers) -> bytes:
    """The body as the client wants it; `headers` get the encoding's name."""
    accepted = asked.get(ACCEPT_ENCODING)
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
    """The first offered encoding that an Accept-Encoding allows.

    A client that names a single one, as Triton's do, wants it whatever the size; a list tells what it could read.
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
    """The body in gzip or deflate (zlib) form."""
    deflater = zlib.compressobj(FAST, wbits=WINDOW_BITS[encoding])
    return deflater.compress(body) + deflater.flush()
