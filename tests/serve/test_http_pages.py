"""Cold routes: what nobody foresaw is an error in JSON too."""

from __future__ import annotations

import asyncio

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serve.http_pages import fault


async def broken(request: Request) -> Response:
    raise RuntimeError("secret")


def test_a_fault_is_json_and_tells_nothing() -> None:
    app = Starlette(routes=[Route("/", broken)], exception_handlers={Exception: fault})
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return await client.get("/")

    answer = asyncio.run(ask())
    assert answer.status_code == 500
    assert answer.json() == {"error": "internal error; the server's log has it"}
