"""The fast path for small requests: split at any byte, and mixed with other requests on the same connection."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator

import pytest

from models.artifact import BUNDLED
from serve.http.body import Receive, Scope, Send
from serve.http.http1.head import MAX_PLAIN_BYTES
from tests.serve.conversations import talk
from tests.serve.listeners import Serving, StartGateway, receive_all

DIGIT = (BUNDLED / "samples" / "mnist-0-7.png").read_bytes()
PATH = b"/v1/models/lenet5-mnist/classify"


@pytest.fixture(scope="module")
def gateway(start_gateway: StartGateway) -> Iterator[Serving]:
    with start_gateway() as gateway:
        yield gateway


def post(body: bytes, path: bytes = PATH, *headers: bytes) -> bytes:
    lines = [b"POST " + path + b" HTTP/1.1", b"host: here", b"content-length: %d" % len(body), *headers]
    return b"\r\n".join([*lines, b"", body])


def statuses(answer: bytes) -> list[int]:
    return [int(code) for code in re.findall(rb"HTTP/1\.1 (\d+) ", answer)]


CLOSE = b"connection: close"


@pytest.mark.parametrize("size", [1, 7, 100])
def test_a_request_that_arrives_in_pieces_is_answered(gateway: Serving, size: int) -> None:
    request = post(DIGIT) + post(DIGIT, PATH, CLOSE)
    with gateway.connect() as client:
        for start in range(0, len(request), size):
            client.sendall(request[start : start + size])
        assert statuses(receive_all(client)) == [200, 200]


def test_responses_keep_the_order_of_the_requests(gateway: Serving) -> None:
    page = b"GET /v2 HTTP/1.1\r\nhost: here\r\n\r\n"
    large = post(b"x" * (MAX_PLAIN_BYTES + 1))
    with_id = [post(DIGIT, PATH, b"x-request-id: r%d" % number) for number in range(4)]
    requests = [
        with_id[0],
        page,
        with_id[1],
        large,
        post(b""),
        with_id[2],
        post(DIGIT, PATH + b"?top_k=1"),
        with_id[3],
        post(DIGIT, PATH, CLOSE),
    ]
    with gateway.connect() as client:
        client.sendall(b"".join(requests))
        answer = receive_all(client)
    assert statuses(answer) == [200, 200, 200, 400, 400, 200, 200, 200, 200]
    assert re.findall(rb'"id":"(r\d)"', answer) == [b"r0", b"r1", b"r2", b"r3"]


@pytest.mark.parametrize("header", [CLOSE, b"expect: 100-continue", b"connection: keep-alive", b"x-other: 1"])
def test_other_headers_do_not_change_the_answer(gateway: Serving, header: bytes) -> None:
    with gateway.connect() as client:
        client.sendall(post(DIGIT, PATH, header) + b"GET /v2 HTTP/1.0\r\n\r\n")
        answer = receive_all(client)
    assert [code for code in statuses(answer) if code != 100] == ([200] if header == CLOSE else [200, 200])


def test_a_chunked_body_is_answered(gateway: Serving) -> None:
    head = b"POST " + PATH + b" HTTP/1.1\r\nhost: here\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    with gateway.connect() as client:
        client.sendall(head + b"%x\r\n" % len(DIGIT) + DIGIT + b"\r\n0\r\n\r\n")
        assert statuses(receive_all(client)) == [200]


def test_a_client_that_disconnects_leaves_nothing_in_flight(gateway: Serving) -> None:
    for _ in range(5):
        with gateway.connect() as client:
            client.sendall(post(DIGIT)[:-10])
    with gateway.connect() as client:
        client.sendall(post(DIGIT, PATH, CLOSE))
        assert statuses(receive_all(client)) == [200]
    assert gateway.plane.in_flight == 0


def test_an_unexpected_error_is_json_without_details(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("secret")

    for path in (b"/hot", b"/cold"):
        caplog.clear()
        with caplog.at_level(logging.ERROR, "convoy.http"):
            (answer,) = talk([post(b"abc", path)], app=app)
        assert answer == (500, {"error": "internal error; the server's log has it"})
        (record,) = caplog.records
        assert "secret" in str(record.exc_info)


@pytest.mark.parametrize("path", [b"/hot", b"/cold"])
@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b", b"a\x00b", b"a\nb"])
def test_a_header_with_control_characters_is_refused(value: bytes, path: bytes) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-request-id", value)]})
        await send({"type": "http.response.body", "body": b""})

    (answer,) = talk([post(b"abc", path)], app=app)
    assert answer.status == 500
