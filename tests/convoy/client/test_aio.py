"""The asynchronous client: the same behaviour on both protocols and as the synchronous client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

import convoy
from convoy.client import ModelSummary, Retries
from convoy.errors import ConvoyError, InvalidInput, NotFound, NotReady, Overloaded
from convoy.wire.tensors import Tensor
from tests.convoy.identity_server import RETRY_AFTER_S, Server, running

Answer = TypeVar("Answer")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running() as server:
        yield server


@pytest.fixture(params=["http", "grpc"])
def url(server: Server, request: pytest.FixtureRequest) -> str:
    return str(getattr(server, request.param))


def ask(url: str, work: Callable[[convoy.AsyncClient], Awaitable[Answer]], tries: int = 1) -> Answer:
    async def scenario() -> Answer:
        async with convoy.AsyncClient(url, Retries(tries=tries, first_s=0.01)) as client:
            return await work(client)

    return asyncio.run(scenario())


def test_concurrent_calls_get_their_own_answers(url: str, tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"png")

    async def work(client: convoy.AsyncClient) -> list[int]:
        answers = await asyncio.gather(*(client.classify("m", [file] * count) for count in range(1, 20)))
        return [len(answer.predictions) for answer in answers]

    assert ask(url, work) == list(range(1, 20))


def test_infer_models_and_ready_answer(url: str) -> None:
    tensor = Tensor("x", "FP32", (1, 2), np.array([[1, 2]], np.float32))

    async def work(client: convoy.AsyncClient) -> tuple[Tensor, list[ModelSummary], bool]:
        return (await client.infer("m", [tensor])).outputs[0], await client.models(), await client.ready()

    output, models, ready = ask(url, work)
    np.testing.assert_array_equal(output.array, tensor.array)
    assert models == [ModelSummary("m", "1", "mnist", 10)]
    assert ready


@pytest.mark.parametrize("kind", [InvalidInput, NotFound, NotReady, Overloaded], ids=lambda kind: kind.__name__)
def test_errors_of_the_server_are_raised_by_the_client(url: str, kind: type[ConvoyError]) -> None:
    with pytest.raises(kind) as caught:
        ask(url, lambda client: client.classify(kind.__name__, b""))
    if isinstance(caught.value, Overloaded):
        assert caught.value.retry_after_s == RETRY_AFTER_S


def test_a_call_is_retried_with_the_same_id(url: str, server: Server) -> None:
    server.refusals, server.ids = 2, []
    answer = ask(url, lambda client: client.classify("flaky", b"png"), tries=3)
    assert server.ids == [answer.id] * 3


def test_answers_of_a_folder_are_in_order(url: str, tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number:02}.png").write_bytes(b"png")

    async def work(client: convoy.AsyncClient) -> list[str]:
        return [
            result.path.stem async for result in client.classify_folder("m", tmp_path, in_flight=4) if result.answer
        ]

    assert ask(url, work) == [f"{number:02}" for number in range(20)]


def test_a_closed_port_is_not_ready(free_ports: Callable[[int], list[int]]) -> None:
    for scheme in ("http", "grpc"):
        assert not ask(f"{scheme}://127.0.0.1:{free_ports(1)[0]}", lambda client: client.ready(1))


def test_an_address_without_scheme_is_refused() -> None:
    with pytest.raises(InvalidInput, match="grpc://"):
        convoy.AsyncClient("localhost:8000")
