"""Dedicated hosts on real Ray: full batches, fair sharing by gateways, one call per batch, no loss when a host fails."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from convoy.errors import EngineFailed
from serve.batching.batcher import Batcher
from serve.batching.line import BatcherLimits
from serve.batching.results import Answer
from serve.config.schema import ModelConfig, Settings
from serve.executors.host import HostAnswer, HostExecutor, connect_host
from tests.artifacts import quadrant_image
from tests.end_to_end.test_load import png, scrape, total

BATCH = 4
CLIENTS = 24  # rows waiting at any time: three times the capacity of both hosts
FOREVER = 1e12


@dataclass
class Gateway:
    """A gateway's queue for the hosts, kept full by closed-loop clients, and its counts."""

    executor: HostExecutor
    fills: list[int] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)  # permits at the end of each batch
    answered: int = 0
    calls: int = 0

    def __post_init__(self) -> None:
        run = partial(self._counted, self.executor.run)
        self.batcher = Batcher(
            run, self.executor.slots, BatcherLimits(BATCH, 1000), self.executor.curve, self._count_fill
        )

    def _count_fill(self, size: int, seconds: float) -> None:
        self.fills.append(size)
        self.slots.append(self.executor.slots.count)

    async def _counted(self, run: Callable[..., Any], rows: NDArray[Any]) -> Any:
        self.calls += 1
        return await run("image", rows)

    async def client(self, stop: asyncio.Event) -> None:
        row = quadrant_image(2)[np.newaxis, :, :, np.newaxis]
        while not stop.is_set():
            answer: Answer = await self.batcher.submit(row, FOREVER)
            assert answer.logits.argmax() == 2
            self.answered += 1


def hosted(server: Settings) -> ModelConfig:
    return next(model for model in server.models if model.name == "hosted")


async def drive(gateways: list[Gateway], until: Callable[[], bool]) -> None:
    stop = asyncio.Event()
    clients = [asyncio.create_task(gateway.client(stop)) for gateway in gateways for _ in range(CLIENTS)]
    while not until():  # noqa: ASYNC110 the condition belongs to another task's counters
        await asyncio.sleep(0.02)
    stop.set()
    await asyncio.gather(*clients)


def test_two_gateways_fill_batches_and_share_two_hosts(server: Settings) -> None:
    async def scenario() -> None:
        gateways = [Gateway(await connect_host(hosted(server), 60)) for _ in range(2)]
        # After 40 answers both gateways know their shares.
        await drive(gateways, lambda: min(gateway.answered for gateway in gateways) >= 40)
        before = [gateway.answered for gateway in gateways]
        for gateway in gateways:
            gateway.fills.clear()
            gateway.slots.clear()
        await drive(gateways, lambda: sum(gateway.answered for gateway in gateways) >= sum(before) + 400)
        served = [gateway.answered - start for gateway, start in zip(gateways, before, strict=True)]
        assert max(served) <= 1.5 * min(served), served  # not exactly equal, since a busy machine may delay a process
        for gateway in gateways:
            assert np.mean(gateway.fills[:-8]) >= 0.9 * BATCH, gateway.fills
            # Mostly: a gateway that a busy machine has stopped for half a second has no share meanwhile.
            assert np.median(gateway.slots) == 2, gateway.slots
        await asyncio.gather(*(gateway.batcher.close() for gateway in gateways))

    asyncio.run(scenario())


def test_a_batch_is_one_call_to_a_host(server: Settings) -> None:
    """Compares the calls that hosts have received with the batches that the gateway has formed."""
    image = png(quadrant_image(1))
    labels = {"model": "hosted"}

    async def ask() -> Counter[int]:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.listen.http_port}", timeout=60) as client:
            answers = [client.post("/v1/models/hosted/classify", content=image) for _ in range(60)]
            return Counter(answer.status_code for answer in await asyncio.gather(*answers))

    before = scrape(server)
    assert asyncio.run(ask()) == {200: 60}
    after = scrape(server)

    def grown(name: str) -> float:
        return total(after, name, **labels) - total(before, name, **labels)

    assert grown("convoy_host_calls_total") == grown("convoy_batches_total") < 60


def test_a_batch_that_the_engine_refuses_is_not_retried(server: Settings) -> None:
    async def scenario() -> None:
        executor = await connect_host(hosted(server), 60)
        calls = total(scrape(server), "convoy_host_calls_total", model="hosted")
        with pytest.raises(EngineFailed, match="ONNX Runtime"):
            await executor.run("image", np.zeros((1, 3, 3, 1), np.uint8))
        assert total(scrape(server), "convoy_host_calls_total", model="hosted") == calls + 1

    asyncio.run(scenario())


def test_a_dying_host_loses_no_request(server: Settings) -> None:
    async def scenario() -> None:
        executor = await connect_host(hosted(server), 60)
        gateway = Gateway(executor)
        ask: Callable[..., Any] = executor._handle.run.remote
        row = quadrant_image(0)[np.newaxis, :, :, np.newaxis]
        answer: HostAnswer = await ask("image", row, "test")

        def killed() -> bool:
            if gateway.answered < 50:
                return False
            os.kill(answer.pid, signal.SIGKILL)
            return True

        await drive([gateway], killed)
        failed_over = gateway.answered
        await drive([gateway], lambda: gateway.answered >= failed_over + 100)
        assert (await ask("image", row, "test")).pid != answer.pid
        assert sum(gateway.fills) == gateway.answered
        await gateway.batcher.close()

    asyncio.run(asyncio.wait_for(scenario(), 120))


@pytest.mark.slow  # requests on the hanging host wait for seconds
def test_a_hanging_host_loses_no_request(server: Settings) -> None:
    async def scenario() -> None:
        executor = await connect_host(hosted(server), 60)
        gateway = Gateway(executor)
        row = quadrant_image(0)[np.newaxis, :, :, np.newaxis]
        answer: HostAnswer = await executor._handle.run.remote("image", row, "test")
        try:
            await drive([gateway], lambda: gateway.answered >= 50)
            os.kill(answer.pid, signal.SIGSTOP)
            before = gateway.answered
            await drive([gateway], lambda: gateway.answered >= before + 200)
        finally:
            with contextlib.suppress(ProcessLookupError):  # Ray may already have replaced it
                os.kill(answer.pid, signal.SIGCONT)
        assert sum(gateway.fills) == gateway.answered
        await gateway.batcher.close()

    asyncio.run(asyncio.wait_for(scenario(), 240))
