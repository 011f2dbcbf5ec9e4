"""The last response of a connection says so, and arrives whatever the client has sent behind its request."""

from __future__ import annotations

import asyncio
import logging

import pytest

from serve.config.schema import Limits
from serve.http.body import Receive, Scope, Send
from tests.serve.conversations import Conversation, Gate, echo, parse_answers, talk

NEXT = b"GET /next HTTP/1.1\r\nhost: here\r\n\r\n"
MANY = NEXT * 100_000  # more than the buffers of both systems hold
PATHS = pytest.mark.parametrize("path", [b"/hot", b"/cold"])


def post(path: bytes, *headers: bytes) -> bytes:
    return b"\r\n".join([b"POST %s HTTP/1.1" % path, b"host: here", b"content-length: 3", *headers, b"", b"abc"])


async def received(client: Conversation, data: bytes, gate: Gate, shutdown: bool) -> bytes:
    """What the client receives until the end of the connection. Fails if the connection is reset."""
    sending = asyncio.create_task(client.send(data))
    async with asyncio.timeout(10):
        await gate.entered.wait()
    if shutdown:
        client.connection.shutdown()
    gate.open.set()
    answer = await client.rest()
    client.socket.close()
    sending.cancel()
    return answer


@PATHS
@pytest.mark.parametrize("behind", [b"", NEXT, MANY], ids=["nothing", "a request", "many requests"])
def test_requests_behind_the_last_one_are_dropped_at_shutdown(path: bytes, behind: bytes) -> None:
    """RFC 9112, section 9.6: the client knows from `connection: close` that they were not processed."""

    async def run() -> bytes:
        gate = Gate()
        async with Conversation(gate, Limits(), tcp=True) as client:
            return await received(client, post(path) + behind, gate, shutdown=True)

    answer = asyncio.run(run())
    assert [one.document["path"] for one in parse_answers(answer)] == [path.decode()]
    assert answer.count(b"connection: close\r\n") == 1


@PATHS
def test_the_last_response_arrives_though_the_client_has_sent_more(path: bytes) -> None:
    async def run() -> bytes:
        gate = Gate()
        async with Conversation(gate, Limits(), tcp=True) as client:
            return await received(client, post(path, b"connection: close") + MANY, gate, shutdown=False)

    assert [one.status for one in parse_answers(asyncio.run(run()))] == [200]


def test_a_response_that_ends_the_connection_arrives_though_the_body_has_not_been_read() -> None:
    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"2"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 403, "headers": headers})
        await send({"type": "http.response.body", "body": b"{}"})

    async def run() -> bytes:
        async with Conversation(refuse, Limits(), tcp=True) as client:
            head = b"POST /cold HTTP/1.1\r\nhost: here\r\ncontent-length: 20000000\r\n\r\n"
            sending = asyncio.create_task(client.send(head + bytes(20_000_000)))
            await client.turn()
            answer = await client.rest()
            await sending
            return answer

    assert [one.status for one in parse_answers(asyncio.run(run()))] == [403]


def test_a_connection_closes_at_shutdown_between_two_requests() -> None:
    async def run() -> bytes:
        async with Conversation(echo, Limits(), tcp=True) as client:
            await client.send(NEXT[:-4])
            client.connection.shutdown()
            return await client.rest()

    assert asyncio.run(run()) == b""


@PATHS
def test_a_request_that_is_cancelled_with_the_server_is_no_failure(
    path: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> bytes:
        gate = Gate()
        async with Conversation(gate, Limits()) as client:
            await client.send(post(path))
            async with asyncio.timeout(10):
                await gate.entered.wait()
            client.connection.cancel()
            return await client.rest()

    with caplog.at_level(logging.DEBUG, "convoy.http"):
        assert asyncio.run(run()) == b""
    assert not caplog.records


@PATHS
def test_an_application_that_cancels_itself_has_failed(path: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def leave(scope: Scope, receive: Receive, send: Send) -> None:
        raise asyncio.CancelledError

    with caplog.at_level(logging.ERROR, "convoy.http"):
        (answer,) = talk([post(path)], app=leave)
    assert answer.status == 500
    assert len(caplog.records) == 1
