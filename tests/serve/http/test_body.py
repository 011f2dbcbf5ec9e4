"""Bodies of requests: reading, the size limit, and decompression."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import zlib
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convoy.errors import Cancelled, InvalidInput, TooLarge, UnsupportedEncoding
from serve.http.body import Message, Receive, decompress, read_body

LIMIT = 1000


def sending(pieces: Iterable[bytes], disconnects: bool = False) -> Receive:
    messages: list[Message] = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    if disconnects:
        messages.append({"type": "http.disconnect"})
    elif messages:
        messages[-1]["more_body"] = False
    queue = iter(messages)

    async def receive() -> Message:
        return next(queue)

    return receive


def read(pieces: Iterable[bytes], headers: dict[bytes, bytes] | None = None, disconnects: bool = False) -> bytes:
    return asyncio.run(read_body(headers or {}, sending(pieces, disconnects), LIMIT))


@given(st.lists(st.binary(max_size=100), min_size=1, max_size=9))
def test_pieces_are_joined(pieces: list[bytes]) -> None:
    assert read(pieces) == b"".join(pieces)


@given(st.lists(st.binary(max_size=400), min_size=1, max_size=9))
def test_no_body_exceeds_the_limit(pieces: list[bytes]) -> None:
    try:
        assert len(read(pieces)) <= LIMIT or len(pieces) == 1
    except TooLarge:
        assert sum(map(len, pieces)) > LIMIT


def test_a_declared_length_over_the_limit_is_refused_unread() -> None:
    with pytest.raises(TooLarge):
        read([], {b"content-length": b"1001"})


def test_a_body_is_cancelled_if_the_client_disconnects() -> None:
    with pytest.raises(Cancelled):
        read([b"half"], disconnects=True)


@given(st.binary(max_size=900))
def test_gzip_and_deflate_bodies_are_decompressed(body: bytes) -> None:
    assert decompress(gzip.compress(body), b"gzip", LIMIT) == body
    assert decompress(zlib.compress(body), b"deflate", LIMIT) == body


def test_the_limit_holds_after_decompression() -> None:
    with pytest.raises(TooLarge):
        decompress(gzip.compress(bytes(10_000_000)), b"gzip", LIMIT)


@given(st.binary(max_size=200))
def test_any_bytes_are_decompressed_or_refused(body: bytes) -> None:
    for encoding in (b"gzip", b"deflate"):
        with contextlib.suppress(InvalidInput, TooLarge):
            decompress(body, encoding, LIMIT)


def test_an_unknown_encoding_is_refused() -> None:
    with pytest.raises(UnsupportedEncoding, match="br"):
        decompress(b"", b"br", LIMIT)
