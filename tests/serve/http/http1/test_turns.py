"""Pipelined requests: each gets one response, in order, and takes no memory while it waits for its turn."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from serve.config.schema import Limits
from serve.http.body import Receive, Scope, Send
from serve.http.responses import LINGER_SECONDS
from tests.serve.conversations import Conversation, echo, parse_answers, talk
from tests.serve.listeners import Serving, StartGateway, receive_all

SMALLEST = b"GET / HTTP/1.1\r\nhost:\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n"
LIMITS = Limits(header_bytes=1024, headers=20, body_bytes=1024, bodies_bytes=5000, header_seconds=1, deadline_ms=1000)


def post(path: bytes, body: bytes, *headers: bytes) -> bytes:
    return b"\r\n".join(
        [b"POST %s HTTP/1.1" % path, b"host: here", b"content-length: %d" % len(body), *headers, b"", body]
    )


def test_waiting_requests_are_not_parsed() -> None:
    """The bytes behind a request stay bytes until it is answered, and the kernel holds those that were not read."""

    async def run() -> tuple[int, bytes]:
        most = 0

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal most
            most = max(most, len(client.connection._unread))
            await echo(scope, receive, send)

        async with Conversation(app, Limits()) as client:
            sending = asyncio.create_task(client.send(SMALLEST * 5000 + LAST))
            received = await client.rest()
            await sending
        return most, received

    most, received = asyncio.run(run())
    assert 0 < most <= 2 * 256 * 1024  # two reads of the event loop
    assert [one.document["path"] for one in parse_answers(received)] == ["/"] * 5000 + ["/last"]


class Gate:
    """An application that answers `/slow` once `open` is set."""

    def __init__(self) -> None:
        self.open = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/slow":
            await self.open.wait()
        await echo(scope, receive, send)


REFUSED = {
    "not HTTP": (b"nonsense\r\n\r\n", 400),
    "a large head": (b"GET /" + bytes(2000).replace(b"\0", b"x") + b" HTTP/1.1\r\n\r\n", 431),
    "trailers": (
        b"POST /cold HTTP/1.1\r\nhost: here\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n" + b"x: y\r\n" * 30,
        431,
    ),
    "a tunnel": (b"CONNECT here:80 HTTP/1.1\r\n\r\n", 501),
    "bodies beyond the memory": (post(b"/cold", bytes(6000)), 503),
    "small bodies beyond the memory": (post(b"/hot", bytes(6000)), 503),
}


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("before", [1, 2])
@pytest.mark.parametrize(("sent", "status"), REFUSED.values(), ids=REFUSED)
def test_a_refusal_waits_for_earlier_responses(sent: bytes, status: int, before: int, apart: bool) -> None:
    async def run() -> bytes:
        gate = Gate()
        slow = (post(b"/slow", b"abc") + SMALLEST)[: None if before == 2 else -len(SMALLEST)]
        async with Conversation(gate, LIMITS) as client:
            for piece in [slow, sent] if apart else [slow + sent]:
                await client.send(piece)
            with pytest.raises(BlockingIOError):
                client.socket.recv(1)
            gate.open.set()
            return await client.rest()

    assert [answer.status for answer in parse_answers(asyncio.run(run()))] == [200] * before + [status]


@pytest.mark.parametrize("following", [b"POST /hot HTTP/1.1\r\nconte", post(b"/cold", b"abc")[:-1]])
def test_a_request_that_waits_for_its_turn_does_not_time_out(following: bytes) -> None:
    async def run() -> bytes:
        gate = Gate()
        async with Conversation(gate, LIMITS) as client:
            await client.send(post(b"/slow", b"abc") + following)
            client.connection.check_time(asyncio.get_running_loop().time() + 100)
            gate.open.set()
            await client.turn()
            client.connection.check_time(asyncio.get_running_loop().time())
            client.connection.check_time(asyncio.get_running_loop().time() + 100)  # its turn has come
            return await client.rest()

    assert [answer.status for answer in parse_answers(asyncio.run(run()))] == [200, 408]


async def early(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers `/early` before it reads the body."""
    if scope["path"] != "/early":
        await echo(scope, receive, send)
        return
    await send({"type": "http.response.start", "status": 403, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"{}"})


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_the_rest_of_an_answered_body_takes_no_memory(framing: str) -> None:
    body = SMALLEST * 220  # 220 requests if it were parsed
    if framing == "length":
        head, body = post(b"/early", body)[: -len(body)], body
    else:
        head, body = (
            b"POST /early HTTP/1.1\r\nhost: here\r\ntransfer-encoding: chunked\r\n\r\n",
            b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body),
        )
    answers = talk([head, body, post(b"/cold", bytes(3000)), LAST], LIMITS, early)
    assert [answer.status for answer in answers] == [403, 200, 200]


def test_a_rejected_connection_is_closed_even_if_the_client_keeps_it_open() -> None:
    async def run() -> bool:
        async with Conversation(echo, LIMITS) as client:
            await client.send(b"nonsense\r\n\r\n")
            assert b" 400 " in await client.rest()
            now = asyncio.get_running_loop().time()
            client.connection.check_time(now)
            assert not client.transport.is_closing()
            client.connection.check_time(now + LINGER_SECONDS + 1)
            return bool(client.transport.is_closing())

    assert asyncio.run(run())


@pytest.fixture(scope="module")
def gateway(start_gateway: StartGateway) -> Iterator[Serving]:
    with start_gateway(limits={"idle_seconds": 1}) as gateway:
        yield gateway


def test_a_client_that_still_sends_receives_the_refusal(gateway: Serving) -> None:
    head = b"POST /v1/models/lenet5-mnist/classify HTTP/1.1\r\nhost: here\r\ntransfer-encoding: chunked\r\n\r\n"
    with gateway.connect() as client:
        client.sendall(head + b"3\r\nabc\r\n0\r\n" + b"x: y\r\n" * 500_000)
        assert [answer.status for answer in parse_answers(receive_all(client))] == [431]


def test_a_connection_is_idle_after_a_discarded_body(gateway: Serving) -> None:
    request = post(b"/v2", bytes(100_000))
    with gateway.connect() as client:
        client.sendall(request[:100])
        received = client.recv(65536)
        client.sendall(request[100:])
        received += receive_all(client)  # until the server closes after limits.idle_seconds
        assert [answer.status for answer in parse_answers(received)] == [405]


def test_blank_lines_before_a_head_count_towards_its_time_limit() -> None:
    async def run() -> list[bool]:
        async with Conversation(echo, LIMITS) as client:
            loop, closing = asyncio.get_running_loop(), []
            await loop.sock_sendall(client.socket, b"\r\n\r\n")
            while not client.connection._blank_since:  # noqa: ASYNC110 the connection has no event to await
                await asyncio.sleep(0)
            for later in (0.5, 1.5):
                client.connection.check_time(loop.time() + later)
                closing.append(client.transport.is_closing())
            return closing

    assert asyncio.run(run()) == [False, True]
