"""Limits of HTTP connections, against clients that violate them. Raw sockets, since client libraries do not misbehave."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from models.artifact import BUNDLED
from tests.serve.listeners import Serving, StartGateway, receive_all
from tests.waiting import until

DIGIT = (BUNDLED / "samples" / "mnist-0-7.png").read_bytes()
LIMITS = {
    "body_bytes": 200_000,
    "bodies_bytes": 300_000,
    "header_bytes": 4096,
    "headers": 20,
    "header_seconds": 0.5,
    "idle_seconds": 1,
    "deadline_ms": 600,
    "connections": 20,
}
HEAD = b"POST /v1/models/lenet5-mnist/classify HTTP/1.1\r\nhost: here\r\n"
READY = b"GET /v2/health/ready HTTP/1.1\r\nhost: here\r\n\r\n"


@pytest.fixture(scope="module")
def gateway(start_gateway: StartGateway) -> Iterator[Serving]:
    with start_gateway(limits=LIMITS) as gateway:
        yield gateway


def ask_ready(client: socket.socket) -> None:
    """Sends a request and reads its response, which may arrive in pieces."""
    client.sendall(READY)
    received = b""
    while not received.endswith(b"}"):
        piece = client.recv(65536)
        assert piece, received
        received += piece
    assert received.startswith(b"HTTP/1.1 200 ")


def test_a_head_with_too_many_bytes_gets_431(gateway: Serving) -> None:
    for head in (HEAD + b"x-long: " + b"a" * 5000 + b"\r\n\r\n", b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\n\r\n"):
        with gateway.connect() as client:
            client.sendall(head)
            assert receive_all(client).startswith(b"HTTP/1.1 431 ")


def test_an_endless_head_gets_431_or_a_closed_connection(gateway: Serving) -> None:
    with gateway.connect() as client:
        client.sendall(HEAD + b"x-long: ")
        try:
            for _ in range(200):
                client.sendall(b"a" * 8192)
        except (BrokenPipeError, ConnectionResetError):
            return
        assert receive_all(client).startswith(b"HTTP/1.1 431 ")


def test_a_head_with_too_many_headers_gets_431(gateway: Serving) -> None:
    with gateway.connect() as client:
        client.sendall(HEAD + b"a: b\r\n" * 30 + b"\r\n")
        answer = receive_all(client)
        assert answer.startswith(b"HTTP/1.1 431 ")
        assert b"limits.headers" in answer


def test_a_slow_head_gets_408(gateway: Serving) -> None:
    with gateway.connect() as client:
        client.sendall(HEAD)
        answer = receive_all(client)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"limits.header_seconds" in answer


def test_a_slow_body_gets_408(gateway: Serving) -> None:
    with gateway.connect() as client:
        client.sendall(HEAD + b"content-length: 1000\r\n\r\nabc")
        answer = receive_all(client)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"limits.deadline_ms" in answer


def test_a_slow_second_head_gets_408(gateway: Serving) -> None:
    with gateway.connect() as client:
        ask_ready(client)
        client.sendall(HEAD)
        assert receive_all(client).startswith(b"HTTP/1.1 408 ")


def test_idle_connections_are_closed_without_a_response(gateway: Serving) -> None:
    with gateway.connect() as unused, gateway.connect() as used:
        ask_ready(used)
        assert receive_all(unused) == b""
        assert receive_all(used) == b""


def test_a_request_beyond_the_connection_limit_is_refused(gateway: Serving) -> None:
    with ExitStack() as connections:
        for _ in range(int(LIMITS["connections"])):
            connections.enter_context(gateway.connect())
        with gateway.connect() as client:
            client.sendall(READY)
            assert client.recv(65536).startswith(b"HTTP/1.1 503 ")


def test_bodies_beyond_the_memory_limit_are_refused(gateway: Serving) -> None:
    """The memory of a body is free again once its request is answered, here with 408."""
    head = HEAD + b"content-length: 190000\r\n\r\n"
    with gateway.connect() as first, gateway.connect() as second:
        for client in (first, second):
            client.sendall(head + bytes(180_000))
        answers = sorted((receive_all(first)[:13], receive_all(second)[:13]))
        assert answers == [b"HTTP/1.1 408 ", b"HTTP/1.1 503 "]
    with gateway.connect() as third:
        third.sendall(head + bytes(190_000))
        assert third.recv(65536).startswith(b"HTTP/1.1 400 ")  # not an image, but the body was read


def test_pipelined_requests_are_all_answered(gateway: Serving) -> None:
    request = HEAD + b"content-length: %d\r\n\r\n" % len(DIGIT) + DIGIT
    with gateway.connect() as client:
        client.sendall(request * 15 + READY[:-2] + b"connection: close\r\n\r\n")
        assert receive_all(client).count(b"HTTP/1.1 200 ") == 16


def test_a_client_that_does_not_read_is_disconnected(gateway: Serving) -> None:
    with gateway.connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(b"GET /openapi.json HTTP/1.1\r\nhost: here\r\n\r\n" * 400)
        until(lambda: not gateway.connections())  # a graceful close would wait for the client to read


def test_bytes_that_are_not_http_get_400(gateway: Serving) -> None:
    with gateway.connect() as client:
        client.sendall(b"\x16\x03\x01\x02\x00hello\r\n\r\n")
        assert receive_all(client).startswith(b"HTTP/1.1 400 ")
