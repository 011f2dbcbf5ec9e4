"""Requests for a protocol upgrade (`curl --http2`, the JDK's HttpClient) are answered without an upgrade.

RFC 9110, section 7.8: a server may ignore Upgrade. RFC 9112, section 6.3: the length of a body does not depend on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.artifact import BUNDLED
from tests.serve.conversations import Answer, parse_answers, talk
from tests.serve.listeners import Serving, StartGateway, receive_all

DIGIT = (BUNDLED / "samples" / "mnist-0-7.png").read_bytes()
TOKENS = (b"h2c", b"websocket", b"TLS/1.2", b"no-such/1")
HIDDEN = b"GET /hidden HTTP/1.1\r\nhost: here\r\n\r\n"
UPGRADE_HEADERS = {"connection", "upgrade", "http2-settings"}


@dataclass(frozen=True)
class Request:
    """A request. `chunk`: bytes per chunk, or None for a body with a Content-Length."""

    path: str
    body: bytes
    chunk: int | None
    expect: bool
    token: bytes
    connection: bytes
    version: bytes = b"1.1"

    def bytes(self, upgrade: bool, last: bool) -> bytes:
        lines = [b"POST %s HTTP/%s" % (self.path.encode(), self.version), b"Host: here"]
        tokens = [b"close"] if last else []
        if upgrade:
            lines += [b"Upgrade: " + self.token, b"HTTP2-Settings: AAMAAABkAAQAAP__"]
            tokens += [self.connection, b"HTTP2-Settings"]
        lines += [b"Connection: " + b", ".join(tokens)] if tokens else []
        lines += [b"Expect: 100-continue"] if self.expect else []
        if self.chunk is None:
            return b"\r\n".join([*lines, b"Content-Length: %d" % len(self.body), b"", self.body])
        return b"\r\n".join([*lines, b"Transfer-Encoding: chunked", b"", chunked(self.body, self.chunk)])


def chunked(body: bytes, size: int) -> bytes:
    """The body in chunks of `size` bytes, with extensions and trailers."""
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    framed = [b"%x;name=value\r\n%s\r\n" % (len(piece), piece) for piece in pieces]
    return b"".join([*framed, b"0\r\nUpgrade: h2c\r\nConnection: upgrade\r\nX-Trailer: 1\r\n\r\n"])


def split(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [piece for piece in [*pieces, data] if piece]


def without_upgrade_headers(answer: Answer) -> Answer:
    headers = {name: value for name, value in answer.document["headers"].items() if name not in UPGRADE_HEADERS}
    return Answer(answer.status, answer.document | {"headers": headers})


REQUESTS = st.lists(
    st.builds(
        Request,
        path=st.sampled_from(["/hot", "/cold"]),
        body=st.one_of(st.binary(max_size=300), st.integers(0, 200).map(HIDDEN.__mul__)),
        chunk=st.one_of(st.none(), st.integers(50, 5000)),
        expect=st.booleans(),
        token=st.sampled_from(TOKENS),
        connection=st.sampled_from([b"Upgrade", b"keep-alive, upgrade"]),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=100, deadline=None)
@given(requests=REQUESTS, sizes=st.lists(st.integers(1, 2000), max_size=40))
def test_responses_equal_those_without_an_upgrade(requests: list[Request], sizes: list[int]) -> None:
    plain, upgrading = (
        b"".join(request.bytes(upgrade, request is requests[-1]) for request in requests) for upgrade in (False, True)
    )
    answers = talk(split(upgrading, sizes))
    assert [(answer.document["path"], answer.document["body"].encode("latin-1")) for answer in answers] == [
        (request.path, request.body) for request in requests
    ]
    assert list(map(without_upgrade_headers, answers)) == list(map(without_upgrade_headers, talk([plain])))
    assert not any("x-trailer" in one.document["headers"] for one in answers)


def test_a_request_that_arrives_byte_by_byte_is_answered() -> None:
    requests = [
        Request(path, HIDDEN, chunk, False, b"h2c", b"Upgrade") for path in ("/hot", "/cold") for chunk in (None, 7)
    ]
    data = b"".join(request.bytes(True, request is requests[-1]) for request in requests)
    answers = talk([data[at : at + 1] for at in range(len(data))])
    assert [(answer.document["path"], answer.document["body"].encode()) for answer in answers] == [
        (request.path, request.body) for request in requests
    ]


def test_an_upgrade_of_http_1_0_is_ignored() -> None:
    (answer,) = talk([Request("/hot", HIDDEN, None, False, b"h2c", b"Upgrade", b"1.0").bytes(True, False)])
    assert answer.document["body"].encode() == HIDDEN


@pytest.mark.parametrize("framing", [b"", b"content-length: %d\r\n" % len(HIDDEN)])
def test_connect_is_refused_and_later_bytes_are_not_read(framing: bytes) -> None:
    for pieces in ([b"CONNECT here:80 HTTP/1.1\r\nhost: here\r\n" + framing + b"\r\n", HIDDEN],):
        for sent in (pieces, [b"".join(pieces)]):
            assert [answer.status for answer in talk(sent)] == [501]


@pytest.fixture(scope="module")
def gateway(start_gateway: StartGateway) -> Iterator[Serving]:
    with start_gateway() as gateway:
        yield gateway


HOT_AND_COLD = {
    "/v1/models/lenet5-mnist/classify": (DIGIT, "predictions"),
    "/v1/models/lenet5-mnist/classify?top_k=1": (DIGIT, "predictions"),
    "/v2/repository/models/lenet5-mnist/load": (
        b'{"parameters": {"no": 1}}',
        "error",
    ),  # refused only after its body is read
}


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize("chunk", [None, 50])
@pytest.mark.parametrize("path", HOT_AND_COLD)
def test_a_gateway_answers_an_upgrade_request_once(
    gateway: Serving, path: str, chunk: int | None, token: bytes
) -> None:
    body, key = HOT_AND_COLD[path]
    sent = Request(path, body, chunk, False, token, b"Upgrade").bytes(True, True)
    sent = sent.replace(b"Host: here", b"Host: here\r\nAuthorization: %s" % gateway.admin["authorization"].encode())
    for cut in (len(sent), sent.index(b"\r\n\r\n") + 4):  # head and body in one write, or in two
        with gateway.connect() as client:
            client.sendall(sent[:cut])
            client.sendall(sent[cut:])
            (answer,) = parse_answers(receive_all(client))
        assert key in answer.document, answer
        assert key == "predictions" or "'no'" in answer.document[key]
