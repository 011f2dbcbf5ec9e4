"""Compression of responses: the encodings that clients accept, and the bodies that are worth it."""

from __future__ import annotations

import asyncio
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.http.compression import INLINE_BYTES, WORTHWHILE_BYTES, choose_encoding, encode_answer
from serve.http.responses import Headers


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
