"""Heads that come again are recognised by their bytes; heads that never come again do not displace them."""

from __future__ import annotations

import pytest

from serve.config.schema import Limits
from serve.http.http1 import connection
from serve.http.http1.head import KNOWN_HEAD_BYTES, KNOWN_HEADS, SEEN_HEADS, KnownHeads, parse_head
from tests.serve.conversations import talk

LIMITS = Limits()


def head(*fields: bytes) -> bytes:
    return b"\r\n".join((b"POST /hot HTTP/1.1", b"host: here", b"content-length: 3", *fields, b"", b""))


def seen(known: KnownHeads, data: bytes, times: int = 1) -> None:
    for _ in range(times):
        if known.get(data) is None:
            known.add(data, parse_head(data, LIMITS))


def test_a_head_is_known_from_its_second_time() -> None:
    known = KnownHeads()
    seen(known, head())
    assert known.get(head()) is None
    seen(known, head())
    found = known.get(head())
    assert found is not None
    assert found.target == b"/hot"


@pytest.mark.parametrize(
    "field", [b"x-request-id: %d", b"traceparent: 00-%032d-0000000000000001-01", b"x-any-name: %d"]
)
def test_heads_that_never_come_again_displace_no_others(field: bytes) -> None:
    known = KnownHeads()
    seen(known, head(), 2)
    for number in range(3 * SEEN_HEADS):
        seen(known, head(field % number))
    assert known.get(head()) is not None
    assert len(known._heads) == 1
    assert len(known._recent) + len(known._older) <= 2 * SEEN_HEADS


def test_the_oldest_known_head_goes_first() -> None:
    known = KnownHeads()
    for number in range(KNOWN_HEADS + 1):
        seen(known, head(b"x-client: %d" % number), 2)
    assert len(known._heads) == KNOWN_HEADS
    assert known.get(head(b"x-client: 0")) is None
    assert known.get(head(b"x-client: 1")) is not None


@pytest.mark.parametrize("field", [b"expect: 100-continue", b"x-long: " + bytes(KNOWN_HEAD_BYTES).replace(b"\0", b"a")])
def test_unusual_heads_are_parsed_each_time(field: bytes) -> None:
    known = KnownHeads()
    seen(known, head(field), 3)
    assert known.get(head(field)) is None


def test_a_connection_parses_a_head_twice_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[bytes] = []

    def counted(data: bytes, limits: Limits) -> object:
        parsed.append(data)
        return parse_head(data, limits)

    monkeypatch.setattr(connection, "parse_head", counted)
    answers = talk([(head() + b"abc") * 5 + head(b"connection: close") + b"abc"])
    assert [answer.document["body"] for answer in answers] == ["abc"] * 6
    assert parsed == [head(), head(), head(b"connection: close")]
