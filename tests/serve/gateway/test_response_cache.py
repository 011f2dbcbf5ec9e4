"""The response cache: keys, shared runs, memory, and its use by a gateway."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convoy.client import Client
from convoy.errors import Cancelled, DeadlineExceeded, InvalidInput, Overloaded
from serve.batching.results import Answer, BatchRun
from serve.gateway import response_cache
from serve.gateway.response_cache import ENTRY_BYTES, HitRate, ResponseCache, key_of
from tests.artifacts import quadrant_png
from tests.serve.listeners import Serving, StartGateway

Compute = Callable[[], Awaitable[list[Answer]]]


def answer_of(value: float) -> list[Answer]:
    """The answer of row 1 in a batch of three rows."""
    logits = np.full((3, 4), -1, np.float32)
    logits[1] = value
    return [Answer(BatchRun(logits, 3, 0.0, 1.0), 1, 2)]


class Model:
    """A model whose answer is the number of the call, or an error."""

    def __init__(self) -> None:
        self.calls = 0
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self) -> list[Answer]:
        self.calls += 1
        await self.gate.wait()
        if self.error:
            raise self.error
        return answer_of(self.calls)


async def ask(cache: ResponseCache, model: Compute, image: bytes, seconds: float = 60) -> tuple[float, bool]:
    gone: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    answers, hit = await cache.find([image], model, time.monotonic() + seconds, gone)
    assert answers[0].logits.shape == (1, 4)
    return float(answers[0].logits[0, 0]), hit


@given(st.lists(st.binary(max_size=6), max_size=4), st.lists(st.binary(max_size=6), max_size=4))
def test_keys_are_equal_only_for_equal_images(images: list[bytes], others: list[bytes]) -> None:
    assert (key_of(images) == key_of(others)) == (images == others)


def test_equal_bytes_get_the_cached_answer_without_a_run() -> None:
    async def scenario() -> None:
        cache, model = ResponseCache(10**6, 0), Model()
        assert await ask(cache, model, b"a") == (1, False)
        assert await ask(cache, model, b"b") == (2, False)
        assert await ask(cache, model, b"a") == (1, True)
        assert model.calls == 2

    asyncio.run(scenario())


def test_concurrent_equal_requests_share_a_run() -> None:
    async def scenario() -> None:
        cache, model = ResponseCache(10**6, 0), Model()
        model.gate.clear()
        requests = [asyncio.create_task(ask(cache, model, b"a")) for _ in range(10)]
        await asyncio.sleep(0)
        model.gate.set()
        answers = await asyncio.gather(*requests)
        assert model.calls == 1
        assert sorted(hit for _, hit in answers) == [False] + [True] * 9

    asyncio.run(scenario())


@pytest.mark.parametrize(("error", "calls"), [(InvalidInput("no image"), 1), (Overloaded("full"), 3)])
def test_an_error_fails_waiting_requests_only_if_the_bytes_are_the_cause(error: Exception, calls: int) -> None:
    async def scenario() -> None:
        cache, model = ResponseCache(10**6, 0), Model()
        model.gate.clear()
        model.error = error
        requests = [asyncio.create_task(ask(cache, model, b"a")) for _ in range(3)]
        await asyncio.sleep(0)
        model.gate.set()
        assert [type(answer) for answer in await asyncio.gather(*requests, return_exceptions=True)] == [type(error)] * 3
        assert model.calls == calls
        model.error = None
        assert (await ask(cache, model, b"a"))[1] is False

    asyncio.run(scenario())


def test_a_request_that_waits_for_another_keeps_its_deadline_and_can_be_cancelled() -> None:
    async def scenario() -> None:
        cache, model = ResponseCache(10**6, 0), Model()
        model.gate.clear()
        first = asyncio.create_task(ask(cache, model, b"a"))
        await asyncio.sleep(0)
        with pytest.raises(DeadlineExceeded):
            await ask(cache, model, b"a", seconds=0.001)
        gone: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        leaving = asyncio.create_task(cache.find([b"a"], model, time.monotonic() + 60, gone))
        await asyncio.sleep(0)
        gone.set_exception(Cancelled("left"))
        with pytest.raises(Cancelled):
            await leaving
        waiting = asyncio.create_task(ask(cache, model, b"a"))
        await asyncio.sleep(0)
        first.cancel()  # its client has disconnected: the waiting request runs the model itself
        model.gate.set()
        assert await waiting == (2, False)

    asyncio.run(scenario())


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(0, 5))
def test_memory_is_bounded_and_the_least_recently_used_entry_is_evicted(images: list[int], capacity: int) -> None:
    size = ENTRY_BYTES + 16

    async def scenario() -> None:
        cache, model = ResponseCache(capacity * size, 0), Model()
        recent: list[int] = []
        for image in images:
            _, hit = await ask(cache, model, bytes([image]))
            assert hit == (image in recent)
            recent = [other for other in recent if other != image] + [image]
            recent = recent[-capacity:] if capacity else []
            assert cache.bytes == len(recent) * size

    asyncio.run(scenario())


@given(st.integers(0, response_cache.WINDOW), st.floats(0, 1))
def test_a_cache_with_too_few_hits_is_bypassed_for_a_while(hits: int, least: float) -> None:
    rate = HitRate(least)
    for number in range(response_cache.WINDOW):
        assert not rate.bypasses()
        rate.count(number < hits)
    bypassed = hits < least * response_cache.WINDOW
    for _ in range(response_cache.PAUSE if bypassed else 0):
        assert rate.bypasses()
    assert not rate.bypasses()


@pytest.fixture(scope="module")
def gateway(start_gateway: StartGateway) -> Iterator[Serving]:
    models = [{"name": "lenet5-mnist", "cache_mb": 1}, {"name": "resnet20-cifar10"}]
    with start_gateway(models=models) as gateway:
        yield gateway


def test_hits_are_marked_and_counted_over_both_protocols(gateway: Serving) -> None:
    image = quadrant_png(1)
    first = httpx.post(f"{gateway.http}/v1/models/lenet5-mnist/classify?id=1", content=image)
    second = httpx.post(f"{gateway.http}/v1/models/lenet5-mnist/classify?id=2", content=image)
    assert "x-cache" not in first.headers
    assert second.headers["x-cache"] == "hit"
    assert second.json()["cached"] is True
    assert second.json()["id"] == "2"
    assert second.json()["predictions"] == first.json()["predictions"]
    with Client(gateway.grpc) as client:
        over_grpc = client.classify("lenet5-mnist", image)
        assert over_grpc.batch_size == 0
        assert [row.index for row in over_grpc.predictions[0].classes] == [
            row["index"] for row in first.json()["predictions"][0]["classes"]
        ]
    headers = {"inference-header-content-length": "0"}
    assert httpx.post(f"{gateway.http}/v2/models/lenet5-mnist/infer", content=image, headers=headers).headers["x-cache"]
    for _ in range(2):
        uncached = httpx.post(f"{gateway.http}/v1/models/resnet20-cifar10/classify", content=image)
        assert "x-cache" not in uncached.headers
    stats = httpx.get(f"{gateway.http}/v2/models/lenet5-mnist/stats").json()["model_stats"][0]
    assert stats["inference_stats"]["cache_hit"]["count"] == 3
    assert stats["inference_stats"]["cache_miss"]["count"] == 1
    assert stats["inference_stats"]["success"]["count"] == 4
    assert stats["inference_stats"]["queue"]["count"] == 1
    assert stats["inference_count"] == 1
