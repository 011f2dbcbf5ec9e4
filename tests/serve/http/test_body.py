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
from serve.http.body import MAX_MEMBERS, PIECE, Message, Receive, decompress, parse_codings, read_body

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


def raw_deflate(body: bytes, level: int = 6) -> bytes:
    deflater = zlib.compressobj(level, wbits=-15)
    return deflater.compress(body) + deflater.flush()


@given(st.binary(max_size=900), st.integers(0, 9))
def test_gzip_and_both_forms_of_deflate_are_decompressed(body: bytes, level: int) -> None:
    assert decompress(gzip.compress(body, level, mtime=0), [b"gzip"], LIMIT) == body
    assert decompress(zlib.compress(body, level), [b"deflate"], LIMIT) == body
    assert decompress(raw_deflate(body, level), [b"deflate"], LIMIT) == body


@given(st.lists(st.binary(max_size=90), min_size=1, max_size=9))
def test_all_members_of_a_gzip_body_are_read(members: list[bytes]) -> None:
    """RFC 1952, section 2.2. Some tools write a member per block or per input file."""
    assert decompress(b"".join(map(gzip.compress, members)), [b"gzip"], LIMIT) == b"".join(members)


def test_members_may_end_anywhere_in_a_piece() -> None:
    limit, block = 10 * PIECE, bytes(range(256))
    for size in range(PIECE - 30, PIECE + 5):
        stored = gzip.compress(bytes(size - 23), 0)  # 23 bytes around one stored block
        assert decompress(stored + gzip.compress(block, mtime=0), [b"gzip"], limit) == bytes(size - 23) + block


def test_the_limit_holds_for_all_members_together() -> None:
    member = gzip.compress(bytes(LIMIT // 2))
    assert len(decompress(member * 2, [b"gzip"], LIMIT)) == LIMIT
    with pytest.raises(TooLarge):
        decompress(member * 2 + gzip.compress(b"1", mtime=0), [b"gzip"], LIMIT)


def test_a_body_may_not_consist_of_countless_members() -> None:
    empty = gzip.compress(b"", mtime=0)
    assert decompress(empty * MAX_MEMBERS, [b"gzip"], LIMIT) == b""
    with pytest.raises(InvalidInput, match="members"):
        decompress(empty * (MAX_MEMBERS + 1), [b"gzip"], LIMIT)


# A fixed time: both processes of the tests must collect the same names.
@pytest.mark.parametrize("rest", [b"\0", b"\x1f", b"\x1f\x8b", b"garbage", gzip.compress(b"more", mtime=0)[:-1]])
@pytest.mark.parametrize("coding", [b"gzip", b"deflate"])
def test_garbage_after_a_compressed_body_is_refused(coding: bytes, rest: bytes) -> None:
    for compress in (gzip.compress,) if coding == b"gzip" else (zlib.compress, raw_deflate):
        with pytest.raises(InvalidInput):
            decompress(compress(b"body") + rest, [coding], LIMIT)


def test_the_limit_holds_after_decompression() -> None:
    with pytest.raises(TooLarge):
        decompress(gzip.compress(bytes(10_000_000)), [b"gzip"], LIMIT)


@given(st.binary(max_size=200))
def test_any_bytes_are_decompressed_or_refused(body: bytes) -> None:
    for codings in ([b"gzip"], [b"deflate"], [b"gzip", b"deflate"]):
        with contextlib.suppress(InvalidInput, TooLarge):
            decompress(body, codings, LIMIT)


@pytest.mark.parametrize("codings", [[b"gzip"], [b"deflate"]])
@pytest.mark.parametrize("body", [b"", gzip.compress(b"body", mtime=0)[:-1], zlib.compress(b"body")[:-1], b"\x78"])
def test_a_body_that_is_cut_off_is_refused(codings: list[bytes], body: bytes) -> None:
    with pytest.raises(InvalidInput):
        decompress(body, codings, LIMIT)


@pytest.mark.parametrize(
    ("header", "codings"),
    [
        (b"gzip", (b"gzip",)),
        (b"X-GZip", (b"gzip",)),
        (b"\tDeflate ", (b"deflate",)),
        (b"", ()),
        (b" , ", ()),
        (b"identity", ()),
        (b"gzip, Identity", (b"gzip",)),
        (b"identity ,gzip", (b"gzip",)),
        (b"deflate\t,, gzip", (b"deflate", b"gzip")),
    ],
)
def test_the_header_names_the_codings_in_their_order(header: bytes, codings: tuple[bytes, ...]) -> None:
    assert parse_codings(header) == codings


@pytest.mark.parametrize("header", [b"br", b"gzip, br", b"gzip;q=1", b"gzip gzip", b"compress", b"gzip, gzip, gzip"])
def test_other_codings_are_refused(header: bytes) -> None:
    with pytest.raises(UnsupportedEncoding):
        parse_codings(header)


def test_codings_are_undone_in_reverse() -> None:
    twice = gzip.compress(zlib.compress(b"body"))
    assert read([twice], {b"content-encoding": b"Deflate, X-GZIP"}) == b"body"
    with pytest.raises(InvalidInput):
        read([twice], {b"content-encoding": b"gzip, deflate"})


@pytest.mark.parametrize("header", [b"", b"identity", b"Identity, identity"])
def test_a_body_without_a_coding_is_not_changed(header: bytes) -> None:
    assert read([b"body"], {b"content-encoding": header}) == b"body"


def test_an_unknown_encoding_is_refused() -> None:
    with pytest.raises(UnsupportedEncoding, match="br"):
        read([b""], {b"content-encoding": b"br"})
