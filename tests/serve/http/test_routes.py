"""Unexpected errors on cold routes: an error in JSON, or a closed connection if the response has begun."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from serve.config.schema import Limits
from serve.http.routes import Faults
from tests.serve.conversations import Conversation, parse_answers


async def broken(request: Request) -> Response:
    raise RuntimeError("secret")


async def breaks_off(request: Request) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"beginning"
        raise RuntimeError("secret")

    return StreamingResponse(pieces(), headers={"content-length": "1000"})


APP = Starlette(routes=[Route("/broken", broken), Route("/breaks-off", breaks_off)], middleware=[Middleware(Faults)])


def ask(path: str) -> bytes:
    async def run() -> bytes:
        async with Conversation(APP, Limits()) as client:
            await client.send(f"GET {path} HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n".encode())
            return await client.rest()

    return asyncio.run(run())


def test_an_unexpected_error_is_json_without_details() -> None:
    (answer,) = parse_answers(ask("/broken"))
    assert (answer.status, answer.document) == (500, {"error": "internal error; the server's log has it"})


def test_an_unexpected_error_within_a_response_closes_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "convoy"):
        received = ask("/breaks-off")
    assert received.startswith(b"HTTP/1.1 200 ")
    assert received.endswith(b"\r\n\r\nbeginning")
    assert "secret" in caplog.text
