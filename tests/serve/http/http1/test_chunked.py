"""Chunked bodies: chunk extensions and trailers are limited like a head, and trailers never become headers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from itertools import chain, islice, repeat
from typing import Any

import pytest

from convoy.credentials import digest, new_key
from models.artifact import BUNDLED
from serve.config.schema import Limits
from tests.serve.conversations import Conversation, echo, parse_answers, talk
from tests.serve.listeners import Serving, StartGateway

DIGIT = (BUNDLED / "samples" / "mnist-0-7.png").read_bytes()
LIMITS = Limits(header_bytes=2048, headers=20)
HEADS = [b"POST /%s HTTP/1.1\r\nhost: here\r\ntransfer-encoding: chunked\r\n\r\n" % name for name in (b"hot", b"cold")]
PIECE_BYTES = 4096
END = b"0\r\nx-last: 1\r\n\r\n"


def trailers(first: bytes, endless: bytes) -> Iterator[bytes]:
    return chain([b"3\r\nabc\r\n0\r\n" + first], repeat(endless))


ENDLESS: dict[str, Callable[[], Iterator[bytes]]] = {
    "trailers": lambda: trailers(b"", b"x: y\r\n" * 100),
    "a trailer's name": lambda: trailers(b"", b"x" * 1000),
    "a trailer's value": lambda: trailers(b"x: ", b"y" * 1000),
    "spaces in a trailer": lambda: trailers(b"x: ", b" " * 1000),
    "a chunk extension": lambda: chain([b"3;"], repeat(b"x" * 1000)),
    "a quoted chunk extension": lambda: chain([b'3;a="'], repeat(b"x" * 1000)),
    "chunk extensions": lambda: repeat(b"40;%s\r\n%s\r\n" % (b"x" * 50, bytes(64))),
    "chunks of one byte": lambda: repeat(b"1\r\nx\r\n" * 100),
    "zeros before sizes": lambda: repeat(b"0000000000000040\r\n%s\r\n" % bytes(64)),
}


@pytest.mark.parametrize("head", HEADS, ids=["hot", "cold"])
@pytest.mark.parametrize("kind", ENDLESS)
def test_endless_framing_is_refused_at_the_limit(head: bytes, kind: str) -> None:
    async def ask() -> tuple[int, bytes]:
        async with Conversation(echo, LIMITS) as client:
            sent = 0
            await client.send(head)
            for piece in islice(ENDLESS[kind](), 1000):
                await client.send(piece)
                sent += len(piece)
                try:
                    client.socket.recv(1, socket.MSG_PEEK)
                except BlockingIOError:
                    continue
                break
            return sent, await client.rest()

    sent, received = asyncio.run(ask())
    assert [answer.status for answer in parse_answers(received)] == [431]
    assert b"limits.header_bytes" in received
    assert sent <= 8 * LIMITS.header_bytes  # includes content, which does not count


@pytest.mark.parametrize("head", HEADS, ids=["hot", "cold"])
@pytest.mark.parametrize("kind", ENDLESS)
def test_endless_framing_in_a_single_read_is_refused(head: bytes, kind: str) -> None:
    data = b"".join(islice(ENDLESS[kind](), 1000))
    assert [answer.status for answer in talk([head + data], LIMITS)] == [431]


@pytest.mark.parametrize(("headers", "status"), [(8, 200), (9, 431)])
def test_headers_and_trailers_are_counted_together(headers: int, status: int) -> None:
    head = HEADS[1][:-2] + b"connection: close\r\n" + b"a: b\r\n" * headers + b"\r\n"
    (answer,) = talk([head + b"3\r\nabc\r\n0\r\n" + b"c: d\r\n" * 9 + b"\r\n"], LIMITS)
    assert answer.status == status


def test_minimal_framing_does_not_count() -> None:
    chunk = b"%x\r\n%s\r\n" % (PIECE_BYTES, bytes(PIECE_BYTES))
    head = HEADS[1][:-2] + b"connection: close\r\n\r\n"
    (answer,) = talk([head, *repeat(chunk, 500), END], LIMITS)  # the framing of 500 chunks takes 4,000 bytes
    assert len(answer.document["body"]) == 500 * PIECE_BYTES
    assert "x-last" not in answer.document["headers"]


def test_a_trailer_never_becomes_a_header() -> None:
    seen: list[dict[str, str]] = []

    async def late(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        await echo(scope, lambda: asyncio.sleep(0, {"body": b""}), send)
        seen.append({name.decode(): value.decode() for name, value in scope["headers"]})

    for head in HEADS:
        pieces = [head[:-2] + b"connection: close\r\n\r\n3\r\nabc\r\n", END]
        for sent in (pieces, [b"".join(pieces)]):
            (answer,) = talk(sent, LIMITS, late)
            assert "x-last" not in answer.document["headers"] | seen.pop()


KEYS = {name: new_key() for name in ("admin", "shop")}


@pytest.fixture(scope="module")
def gateway(start_gateway: StartGateway) -> Iterator[Serving]:
    keys = [
        {"name": "admin", "sha256": digest(KEYS["admin"]).hex(), "admin": True},
        {"name": "shop", "sha256": digest(KEYS["shop"]).hex(), "models": []},
    ]
    with start_gateway(keys=keys) as gateway:
        yield gateway


@pytest.mark.parametrize("path", ["/v1/models/lenet5-mnist/classify", "/v2/repository/models/lenet5-mnist/load"])
@pytest.mark.parametrize(("sent_key", "status"), [(None, 401), ("shop", 403), ("admin", 200)])
def test_a_key_in_a_trailer_is_ignored(gateway: Serving, path: str, sent_key: str | None, status: int) -> None:
    key = b"x-api-key: %s\r\n" % KEYS[sent_key].encode() if sent_key else b""
    head = b"POST %s HTTP/1.1\r\nhost: here\r\ntransfer-encoding: chunked\r\nconnection: close\r\n%s\r\n"
    body = DIGIT if "classify" in path else b"{}"
    trailer = b"0\r\nx-api-key: %s\r\n\r\n" % KEYS["admin"].encode()
    with gateway.connect() as client:
        client.sendall(head % (path.encode(), key) + b"%x\r\n%s\r\n" % (len(body), body) + trailer)
        assert client.recv(65536).startswith(b"HTTP/1.1 %d " % status)
