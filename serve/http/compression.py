"""Responses compressed with gzip or deflate, if the client accepts it (RFC 9110, section 12.5.3)."""

from __future__ import annotations

import asyncio
import re
import zlib
from functools import lru_cache

from serve.http.body import GZIP_BITS, ZLIB_BITS
from serve.http.body import Headers as RequestHeaders
from serve.http.responses import Headers

ACCEPT_ENCODING = b"accept-encoding"
OFFERED = (b"gzip", b"deflate")
WORTHWHILE_BYTES = 1024  # for smaller bodies the extra header and the time cost more than the bytes saved
INLINE_BYTES = 64 * 1024  # larger bodies are compressed on a thread, because they would block the event loop
FAST = 1  # zlib level
WEIGHT = re.compile(rb"0(\.[0-9]{0,3})?|1(\.0{0,3})?")  # RFC 9110, section 12.4.2


async def encode_answer(request_headers: RequestHeaders, body: bytes, headers: Headers) -> bytes:
    """Compresses the body if the client accepts it, and then adds the encoding to `headers`."""
    if len(body) <= INLINE_BYTES:
        return encode_small(request_headers, body, headers)
    encoding = _add_encoding(request_headers, body, headers)
    return (
        body if encoding is None else await asyncio.get_running_loop().run_in_executor(None, compress, body, encoding)
    )


def encode_small(request_headers: RequestHeaders, body: bytes, headers: Headers) -> bytes:
    """As `encode_answer` for a body of at most INLINE_BYTES, which is compressed at once."""
    encoding = _add_encoding(request_headers, body, headers)
    return body if encoding is None else compress(body, encoding)


def _add_encoding(request_headers: RequestHeaders, body: bytes, headers: Headers) -> bytes | None:
    accepted = request_headers.get(ACCEPT_ENCODING)
    encoding = None if accepted is None else choose_encoding(accepted, len(body) >= WORTHWHILE_BYTES)
    if encoding is not None:
        headers.append((b"content-encoding", encoding))
        headers.append((b"vary", ACCEPT_ENCODING))
    return encoding


@lru_cache(maxsize=256)
def choose_encoding(accepted: bytes, worthwhile: bool) -> bytes | None:
    """The offered encoding that an Accept-Encoding header prefers, None for no compression.

    A single encoding, as Triton's clients send, is an explicit request and is used for small bodies too. A list, as browsers
    send, lists the encodings that the client can read. Where nothing that the header accepts is offered, the body is sent
    as it is.
    """
    weights = _weights(accepted)
    others = weights.get(b"*", 0.0)
    best = max(OFFERED, key=lambda name: weights.get(name, others))
    weight = weights.get(best, others)
    if weight == 0 or weight < weights.get(b"identity", 0.0):
        return None
    identity_refused = weights.get(b"identity", weights.get(b"*", 1.0)) == 0
    return best if worthwhile or identity_refused or list(weights) == [best] else None


def _weights(accepted: bytes) -> dict[bytes, float]:
    """The weight of each listed coding, 0 where it is malformed. White space is allowed around every separator."""
    weights: dict[bytes, float] = {}
    for element in accepted.lower().split(b","):
        name, *parameters = (part.strip(b" \t") for part in element.split(b";"))
        if name:
            weights[b"gzip" if name == b"x-gzip" else name] = min(map(_weight, filter(None, parameters)), default=1.0)
    return weights


def _weight(parameter: bytes) -> float:
    """The weight in a parameter `q=…`, the only one that Accept-Encoding has."""
    key, _, value = (part.strip(b" \t") for part in parameter.partition(b"="))
    return float(value) if key == b"q" and WEIGHT.fullmatch(value) else 0.0


def compress(body: bytes, encoding: bytes) -> bytes:
    """Compresses `body` as gzip, or as deflate (zlib format, RFC 1950)."""
    deflater = zlib.compressobj(FAST, wbits=GZIP_BITS if encoding == b"gzip" else ZLIB_BITS)
    return deflater.compress(body) + deflater.flush()
