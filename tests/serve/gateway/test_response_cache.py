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
from tests.artifacts import quadrant_image
from tests.serve.listeners import Serving, StartGateway

Compute = Callable[[], Awaitable[list[Answer]]]


def answer_of(value: float) -> list[Answer]:
    """Row 1 of a batch of three."""
    logits = np.full((3, 4), -1, np.float32)
    logits[1] = value
    return [Answer(BatchRun(logits, 3, 0.0, 1.0), 1, 2)]


class Model:
    """Answers with the number of the call, or fails."""

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


def test_the_same_bytes_get_the_same_answer_without_a_run() -> None:
    async def scenario() -> None:
        cache, model = ResponseCache(10**6, 0), Model()
        assert await ask(cache, model, b"a") == (1, False)
        assert await ask(cache, model, b"b") == (2, False)
        assert await ask(cache, model, b"a") == (1, True)
        assert model.calls == 2

    asyncio.run(scenario())


def test_equal_requests_under_way_share_one_run() -> None:
    async def scenario() -> None:
        cache, model = ResponseCache(10**6, 0), Model()
        model.gate.clear()
        asked = [asyncio.create_task(ask(cache, model, b"a")) for _ in range(10)]
        await asyncio.sleep(0)
        model.gate.set()
        answers = await asyncio.gather(*asked)
        assert model.calls == 1
        assert sorted(hit for _, hit in answers) == [False] + [True] * 9

    asyncio.run(scenario())


@pytest.mark.parametrize(("error", "calls"), [(InvalidInput("no image"), 1), (Overloaded("full"), 3)])
def test_only_what_is_wrong_with_the_bytes_fails_those_who_wait(error: Exception, calls: int) -> None:
    async def scenario() -> None:
        cache, model = ResponseCache(10**6, 0), Model()
        model.gate.clear()
        model.error = error
        asked = [asyncio.create_task(ask(cache, model, b"a")) for _ in range(3)]
        await asyncio.sleep(0)
        model.gate.set()
        assert [type(one) for one in await asyncio.gather(*asked, return_exceptions=True)] == [type(error)] * 3
        assert model.calls == calls
        model.error = None
        assert (await ask(cache, model, b"a"))[1] is False

    asyncio.run(scenario())


def test_who_waits_for_another_keeps_its_deadline_and_may_leave() -> None:
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
        first.cancel()  # its client left: who waited asks itself
        model.gate.set()
        assert await waiting == (2, False)

    asyncio.run(scenario())


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(0, 5))
def test_memory_is_bounded_and_the_oldest_go_first(images: list[int], room: int) -> None:
    size = ENTRY_BYTES + 16

    async def scenario() -> None:
        cache, model = ResponseCache(room * size, 0), Model()
        recent: list[int] = []
        for image in images:
            _, hit = await ask(cache, model, bytes([image]))
            assert hit == (image in recent)
            recent = [one for one in recent if one != image] + [image]
            recent = recent[-room:] if room else []
            assert cache.bytes == len(recent) * size

    asyncio.run(scenario())


@given(st.integers(0, response_cache.WINDOW), st.floats(0, 1))
def test_a_cache_that_does_not_pay_rests(hits: int, least: float) -> None:
    rate = HitRate(least)
    for number in range(response_cache.WINDOW):
        assert not rate.bypasses()
        rate.count(number < hits)
    resting = hits < least * response_cache.WINDOW
    for _ in range(response_cache.PAUSE if resting else 0):
        assert rate.bypasses()
    assert not rate.bypasses()


@pytest.fixture(scope="module")
def gateway(start_gateway: StartGateway) -> Iterator[Serving]:
    models = [{"name": "lenet5-mnist", "cache_mb": 1}, {"name": "resnet20-cifar10"}]
    with start_gateway(models=models) as one:
        yield one


def test_hits_are_marked_and_counted_over_both_protocols(gateway: Serving) -> None:
    from tests.end_to_end.test_load import png

    image = png(np.kron(quadrant_image(1), np.ones((4, 4), np.uint8)))
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
        assert [one.index for one in over_grpc.predictions[0].classes] == [
            one["index"] for one in first.json()["predictions"][0]["classes"]
        ]
    headers = {"inference-header-content-length": "0"}
    assert httpx.post(f"{gateway.http}/v2/models/lenet5-mnist/infer", content=image, headers=headers).headers["x-cache"]
    for _ in range(2):
        uncached = httpx.post(f"{gateway.http}/v1/models/resnet20-cifar10/classify", content=image)
        assert "x-cache" not in uncached.headers
    spans = httpx.get(f"{gateway.http}/v2/models/lenet5-mnist/stats").json()["model_stats"][0]
    assert spans["inference_stats"]["cache_hit"]["count"] == 3
    assert spans["inference_stats"]["cache_miss"]["count"] == 1
    assert spans["inference_stats"]["success"]["count"] == 4
    assert spans["inference_stats"]["queue"]["count"] == 1
    assert spans["inference_count"] == 1
