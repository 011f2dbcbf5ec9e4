"""The context of a request: cancellation, and copies for repeated runs."""

from __future__ import annotations

import asyncio
import time

import pytest

from convoy.errors import Cancelled
from serve.gateway.request_context import RequestContext
from serve.telemetry.request_timings import RequestTimings


def test_cancellation_fails_the_futures_that_the_request_awaits() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        done, waiting = loop.create_future(), loop.create_future()
        done.set_result(1)
        context = RequestContext(RequestTimings(0.0))
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
        context = RequestContext(RequestTimings(1.0), deadline=1e12)
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
