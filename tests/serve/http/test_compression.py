"""Compression of responses: the encodings that clients accept, and the bodies that are worth it."""

from __future__ import annotations

import asyncio
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convoy.errors import UnsupportedEncoding, UnsupportedMediaType
from serve.http.compression import INLINE_BYTES, WORTHWHILE_BYTES, choose_encoding, encode_answer
from serve.http.responses import Headers, error_response


def answer(body: bytes, accepted: bytes | None) -> tuple[bytes, bytes | None]:
    headers: Headers = []
    encoded = asyncio.run(encode_answer({} if accepted is None else {b"accept-encoding": accepted}, body, headers))
    return encoded, dict(headers).get(b"content-encoding")


@pytest.mark.parametrize(("name", "window"), [(b"gzip", 31), (b"deflate", 15)])
@pytest.mark.parametrize("size", [0, 1, WORTHWHILE_BYTES, INLINE_BYTES + 1])
def test_a_single_encoding_is_used_for_every_size(name: bytes, window: int, size: int) -> None:
    body = bytes(size)
    encoded, used = answer(body, name)
    assert used == name
    assert zlib.decompress(encoded, window) == body


@pytest.mark.parametrize(
    ("accepted", "size", "expected"),
    [
        (None, WORTHWHILE_BYTES, None),
        (b"br", WORTHWHILE_BYTES, None),
        (b"gzip, deflate, br", WORTHWHILE_BYTES, b"gzip"),
        (b"gzip, deflate, br", WORTHWHILE_BYTES - 1, None),
        (b"gzip;q=0, Deflate;q=0.5", WORTHWHILE_BYTES, b"deflate"),
        (b"gzip;q=0", WORTHWHILE_BYTES, None),
        (b"gzip;q=nonsense", WORTHWHILE_BYTES, None),
        (b"identity", WORTHWHILE_BYTES, None),
        (b"gzip; q=1.0, deflate;q=0.5", WORTHWHILE_BYTES, b"gzip"),
        (b"gzip ; q = 0 ,\tdeflate\t;\tQ=0.001", WORTHWHILE_BYTES, b"deflate"),
        (b"gzip;q=0.5, deflate;q=0.501", WORTHWHILE_BYTES, b"deflate"),
        (b"gzip;q=0.000, deflate;q=0.", WORTHWHILE_BYTES, None),
        (b"gzip;q=1.001", WORTHWHILE_BYTES, None),
        (b"gzip;q=0.1234", WORTHWHILE_BYTES, None),
        (b"gzip;q=nan, deflate;q=inf", WORTHWHILE_BYTES, None),
        (b"gzip;q=-1", WORTHWHILE_BYTES, None),
        (b"gzip;", WORTHWHILE_BYTES, b"gzip"),
        (b"gzip;level=9", WORTHWHILE_BYTES, None),
        (b"x-gzip", 1, b"gzip"),
        (b"GZIP,", 1, b"gzip"),
        (b"*", WORTHWHILE_BYTES, b"gzip"),
        (b"*", 1, None),
        (b"*;q=0", WORTHWHILE_BYTES, None),
        (b"gzip;q=0, *;q=0.1", WORTHWHILE_BYTES, b"deflate"),
        (b"deflate, *;q=0", 1, b"deflate"),
        (b"identity;q=0, gzip", 1, b"gzip"),
        (b"identity;q=0, *", 1, b"gzip"),
        (b"identity;q=0", WORTHWHILE_BYTES, None),
        (b"identity, gzip;q=0.5", WORTHWHILE_BYTES, None),
        (b"identity;q=0.5, gzip", WORTHWHILE_BYTES, b"gzip"),
        (b"", WORTHWHILE_BYTES, None),
    ],
)
def test_only_accepted_and_worthwhile_encodings_are_used(
    accepted: bytes | None, size: int, expected: bytes | None
) -> None:
    encoded, used = answer(bytes(size), accepted)
    assert used == expected
    assert expected or encoded == bytes(size)


@given(st.binary(max_size=60))
def test_any_accept_encoding_is_handled(accepted: bytes) -> None:
    assert choose_encoding(accepted, True) in (None, b"gzip", b"deflate")


def test_only_a_refused_coding_is_answered_with_the_codings_that_are_read() -> None:
    """RFC 9110, section 12.5.3: the header tells clients apart a refused coding and a refused media type."""
    for error, expected in ((UnsupportedEncoding("br"), b"gzip, deflate"), (UnsupportedMediaType("text"), None)):
        status, headers, _ = error_response(error)
        assert (status, dict(headers).get(b"accept-encoding")) == (415, expected)
