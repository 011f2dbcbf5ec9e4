"""The context of a request: cancellation, and copies for repeated runs."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from convoy.client import Client
from convoy.errors import Cancelled
from models.artifact import BUNDLED
from serve.batching.deadline_queue import Backlog
from serve.gateway.request_context import RequestContext
from serve.telemetry.request_timings import RequestTimings
from tests.serve.listeners import StartGateway


def test_cancellation_fails_the_futures_that_the_request_awaits() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        done, waiting = loop.create_future(), loop.create_future()
        done.set_result(1)
        context = RequestContext(RequestTimings(0.0), 1e12)
        context.cancel()  # nothing is awaited yet
        context.pending = (done, waiting)
        context.cancel()
        context.cancel()  # a second disconnect changes nothing
        assert done.result() == 1
        with pytest.raises(Cancelled):
            await waiting

    asyncio.run(scenario())


def test_a_copy_has_its_own_timings_and_cancellation() -> None:
    async def scenario() -> None:
        context = RequestContext(RequestTimings(1.0), 1e12)
        context.request_id, context.fields = "mine", {"user": 7}
        context.timings.arm = "one"
        copy = context.copy(priority=5)
        assert (copy.request_id, copy.fields, copy.caller) == ("mine", {"user": 7}, context.caller)
        assert (copy.deadline, copy.priority, context.priority) == (1e12, 5, 0)
        assert copy.timings.arm == ""
        assert 1.0 < copy.timings.started <= time.monotonic()
        copy.pending = (asyncio.get_running_loop().create_future(),)
        context.cancel()
        assert not copy.pending[0].done()

    asyncio.run(scenario())


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_every_listener_gives_requests_a_finite_deadline(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    image = (BUNDLED / "samples" / "mnist-0-7.png").read_bytes()
    with start_gateway(models=[{"name": "lenet5-mnist"}]) as gateway:
        batcher = gateway.plane.endpoints.by_name["lenet5-mnist"].batcher
        admit, deadlines = batcher.admit, []

        def record(size: int, deadline: float, *rest: Any) -> None:
            deadlines.append(deadline)
            admit(size, deadline, *rest)

        monkeypatch.setattr(batcher, "admit", record)
        with Client(getattr(gateway, protocol)) as client:
            client.classify("lenet5-mnist", image)
        longest = gateway.plane.limits.deadline_ms / 1000
    backlog = Backlog()
    assert deadlines
    for deadline in deadlines:
        assert time.monotonic() - 60 < deadline <= time.monotonic() + longest
        backlog.add(1, deadline, 1)  # raises for an infinite one
