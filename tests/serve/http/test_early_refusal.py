"""Early refusal: a request that would miss its deadline is refused as soon as its head is read. The connection stays open."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from convoy.credentials import digest
from convoy.errors import Overloaded
from models.artifact import BUNDLED
from serve.http.body import Headers
from serve.http.request_headers import TIMEOUT_HEADER
from serve.telemetry.definitions import REQUESTS, SHED
from tests.serve.listeners import Serving, StartGateway
from tests.waiting import until

MODEL = "lenet5-mnist"
PATH = f"/v1/models/{MODEL}/classify"
DIGIT = (BUNDLED / "samples" / "mnist-0-7.png").read_bytes()
KEY = "convoy_secret"


@pytest.fixture
def gateway(start_gateway: StartGateway) -> Iterator[Serving]:
    with start_gateway(models=[{"name": MODEL}]) as gateway:
        yield gateway


@pytest.fixture
def crowded(gateway: Serving, monkeypatch: pytest.MonkeyPatch) -> Serving:
    """A gateway whose queue refuses requests of priority 1."""
    batcher = gateway.plane.endpoints.by_name[MODEL].batcher
    admit = batcher.admit

    def check(size: int, deadline: float, priority: int = 0, ready_in: float = 0.0, decoded: bool = False) -> None:
        if priority == 1:
            raise Overloaded("queue too long", 3.2)
        admit(size, deadline, priority, ready_in)

    monkeypatch.setattr(batcher, "admit", check)
    monkeypatch.setattr(gateway.plane, "has_time", lambda endpoint: False)
    return gateway


def head(length: int, *fields: str) -> bytes:
    lines = (f"POST {PATH} HTTP/1.1", "Host: h", f"Content-Length: {length}", *fields)
    return "\r\n".join([*lines, "", ""]).encode()


def read_answer(client: socket.socket) -> tuple[int, dict[str, str], bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        data += client.recv(65536)
    start, _, rest = data.partition(b"\r\n\r\n")
    lines = start.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    while len(rest) < int(headers["content-length"]):
        rest += client.recv(65536)
    return int(lines[0].split()[1]), headers, rest


def test_the_refusal_is_sent_before_the_body_which_is_discarded(crowded: Serving) -> None:
    with crowded.connect() as client:
        client.sendall(head(300_000, "X-Request-Priority: 1", "X-Request-Id: mine"))
        status, headers, body = read_answer(client)
        assert (status, headers["retry-after"], headers["x-request-id"]) == (503, "4", "mine")
        assert body == b'{"error":"queue too long"}'
        assert "connection" not in headers
        smuggled = head(0, "X-Request-Id: smuggled")
        client.sendall(smuggled + b"x" * (300_000 - len(smuggled)) + head(len(DIGIT), "X-Request-Id: next") + DIGIT)
        status, headers, _ = read_answer(client)
        assert (status, headers["x-request-id"]) == (200, "next")


def test_an_early_refusal_is_counted_like_any_other(crowded: Serving) -> None:
    answer = httpx.post(crowded.http + PATH, content=DIGIT, headers={"x-request-priority": "1"})
    assert answer.status_code == 503
    values = crowded.metrics.values
    labels = {"model": MODEL, "version": "1"}
    assert values(REQUESTS, protocol="http", code="503", **labels)[0] == 1
    assert values(SHED, reason="queue", **labels)[0] == 1


@pytest.mark.parametrize(
    "headers",
    [{"origin": "https://elsewhere"}, {"connection": "close"}, {"expect": "100-continue"}, {"x-request-priority": "x"}],
)
def test_requests_with_special_headers_are_refused_by_the_application(
    crowded: Serving, headers: dict[str, str]
) -> None:
    answer = httpx.post(crowded.http + PATH, content=DIGIT, headers={"x-request-priority": "1", **headers})
    assert answer.status_code == (400 if headers.get("x-request-priority") == "x" else 503)
    assert "error" in answer.json()


def test_a_pipelined_request_is_refused_in_order(crowded: Serving) -> None:
    with crowded.connect() as client:
        good, refused = head(len(DIGIT)) + DIGIT, head(len(DIGIT), "X-Request-Priority: 1") + DIGIT
        client.sendall(good + refused + good)
        assert [read_status(client) for _ in range(3)] == [200, 503, 200]


def read_status(client: socket.socket) -> int:
    """The status of the next response, read byte by byte: several may have arrived."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += client.recv(1)
    length = int(data.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    while length:
        length -= len(client.recv(length))
    return int(data.split()[1])


def test_a_flood_of_heads_does_not_block_other_connections(crowded: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the heads in one read, one is refused in each turn of the event loop."""
    models, loop = crowded.listener.models, crowded.loop
    turns = [0]

    def next_turn() -> None:
        turns.append(0)

    def refuse(target: bytes, asked: Headers, began: float) -> bytes | None:
        if not turns[-1]:
            loop.call_soon(next_turn)
        turns[-1] += 1
        return type(models).refuse(models, target, asked, began)

    monkeypatch.setattr(models, "refuse", refuse)
    refused = head(len(DIGIT), "X-Request-Priority: 1") + DIGIT
    with crowded.connect() as client:
        client.sendall(refused * 100)
        assert [read_status(client) for _ in range(100)] == [503] * 100
    assert sum(turns) == 100
    assert max(turns) == 1


def test_a_body_beyond_the_limit_closes_the_connection(crowded: Serving) -> None:
    with crowded.connect() as client:
        client.sendall(head(10**15, "X-Request-Priority: 1"))
        status, headers, _ = read_answer(client)
        assert status in (413, 503)
        assert headers["connection"] == "close"


def test_responses_that_the_client_does_not_read_are_bounded(crowded: Serving) -> None:
    refused = head(0, "X-Request-Priority: 1")
    with crowded.connect() as client:
        client.settimeout(2)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sent = 0
        try:
            while sent < 200_000:
                sent += client.send(refused * 100) // len(refused)
        except TimeoutError:
            pass
        assert sent < 200_000
        connections = crowded.listener._shared.connections
        until(lambda: connections)
        assert all(connection.transport.get_write_buffer_size() < 2**20 for connection in connections)


def test_a_request_without_a_key_gets_401_even_under_overload(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [{"name": "client", "sha256": digest(KEY).hex()}]
    with start_gateway(models=[{"name": MODEL}], keys=keys) as gateway:

        def refuse(*_: object) -> None:
            raise Overloaded("queue too long", 1.0)

        monkeypatch.setattr(gateway.plane.endpoints.by_name[MODEL].batcher, "admit", refuse)
        assert httpx.post(gateway.http + PATH, content=DIGIT).status_code == 401
        answer = httpx.post(gateway.http + PATH, content=DIGIT, headers={"x-api-key": KEY})
        assert answer.status_code == 503


def test_a_refusal_is_reused_for_equal_requests_for_a_while(crowded: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request is counted. A request with another priority or deadline, or with an id, is checked by itself."""
    now, checks = [0.0], 0
    check_room = crowded.plane.check_room

    def check(*args: Any) -> None:
        nonlocal checks
        checks += 1
        check_room(*args)

    monkeypatch.setattr(crowded.plane, "check_room", check)
    monkeypatch.setattr(crowded.listener.models, "_clock", lambda: now[0])

    def ask(**headers: str) -> int:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = httpx.post(crowded.http + PATH, content=DIGIT, headers={"x-request-priority": "1", **fields})
        assert answer.headers.get("x-request-id") == headers.get("x_request_id")
        return answer.status_code

    assert [ask(x_request_timeout_ms="1000") for _ in range(3)] == [503] * 3
    assert checks == 1
    assert [ask(x_request_timeout_ms="2000"), ask(x_request_timeout_ms="1000", x_request_id="mine")] == [503] * 2
    assert checks == 3
    assert ask(x_request_timeout_ms="1000") == 503
    assert checks == 3
    now[0] += 0.021
    assert ask(x_request_timeout_ms="1000") == 503
    assert checks == 4
    labels = {"model": MODEL, "version": "1"}
    assert crowded.metrics.values(REQUESTS, protocol="http", code="503", **labels)[0] == 7


@pytest.mark.parametrize("size", [70_000, 500_000, 1_100_000])
def test_bodies_of_many_pieces_are_read_to_their_end(gateway: Serving, size: int) -> None:
    """On the hot path and beside it."""
    answer = httpx.post(gateway.http + PATH, content=DIGIT + b"\0" * (size - len(DIGIT)), timeout=30)
    assert answer.status_code == 200, answer.text


Judge = Callable[[list[tuple[Headers, float]]], list[bool]]


@pytest.fixture
def judge(gateway: Serving, monkeypatch: pytest.MonkeyPatch) -> Judge:
    """Checks requests in one turn of the loop: headers and seconds since the start of each. Returns which are refused."""

    monkeypatch.setattr(gateway.plane, "has_time", lambda endpoint: False)

    async def ask(requests: list[tuple[Headers, float]]) -> list[bool]:
        hot = gateway.listener.models
        return [hot.refuse(PATH.encode(), asked, time.monotonic() - ago) is not None for asked, ago in requests]

    return lambda requests: asyncio.run_coroutine_threadsafe(ask(requests), gateway.loop).result(30)


def test_the_refusal_of_a_slow_sender_is_not_reused_for_other_requests(
    gateway: Serving, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    def admit(size: int, deadline: float, *_: object) -> None:
        if deadline - time.monotonic() < 2:
            raise Overloaded("queue too long", 10.0)

    monkeypatch.setattr(gateway.plane.endpoints.by_name[MODEL].batcher, "admit", admit)
    slow = {TIMEOUT_HEADER: b"20000"}
    assert judge([(slow, 19.9), (slow, 0.0), (slow, 19.95)]) == [True, False, True]


def test_a_refusal_is_reused_while_the_clock_advances(
    gateway: Serving, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = 0

    def admit(*_: object) -> None:
        nonlocal checks
        checks += 1
        raise Overloaded("queue full", 1000.0)

    monkeypatch.setattr(gateway.plane.endpoints.by_name[MODEL].batcher, "admit", admit)
    assert judge([({}, 0.0)] * 100) == [True] * 100
    assert checks < 50


def test_a_refusal_is_reused_only_for_a_fraction_of_the_estimated_wait(
    gateway: Serving, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full queue may be empty long before the default deadline."""
    now, full = [time.monotonic()], [True]

    def admit(*_: object) -> None:
        if full[0]:
            raise Overloaded("queue full", 0.05)

    monkeypatch.setattr(gateway.plane.endpoints.by_name[MODEL].batcher, "admit", admit)
    monkeypatch.setattr(gateway.listener.models, "_clock", lambda: now[0])
    assert judge([({}, 0.0)]) == [True]
    full[0] = False
    now[0] += 0.0005
    assert judge([({}, 0.0)]) == [True]
    now[0] += 0.001
    assert judge([({}, 0.0)]) == [False]


def test_a_refusal_is_forgotten_when_the_models_change(
    gateway: Serving, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise Overloaded("queue full", 1000.0)

    with monkeypatch.context() as patch:
        patch.setattr(gateway.plane.endpoints.by_name[MODEL].batcher, "admit", refuse)
        assert judge([({}, 0.0)]) == [True]
    gateway.loop.call_soon_threadsafe(gateway.plane.replace, gateway.plane.endpoints)
    assert judge([({}, 0.0)]) == [False]
