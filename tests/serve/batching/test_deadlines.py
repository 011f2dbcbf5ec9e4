"""Deadlines in the batcher: requests that cannot meet theirs are refused, and late ones get an error without a run."""

from __future__ import annotations

import asyncio
import time

import pytest

from convoy.errors import Cancelled, DeadlineExceeded, Overloaded
from serve.batching.batcher import SWEEP_SECONDS, Batcher
from serve.batching.line import BatcherLimits
from serve.batching.slots import Slots
from tests.serve.batching.row_engine import CURVE, FOREVER, Engine, make, rows, run


def test_a_full_queue_refuses_with_a_time_to_retry_after() -> None:
    async def scenario() -> None:
        engine, batcher = make(limit=2, queue=4)
        engine.gate.clear()
        futures = [batcher.submit(rows(1.0, 2.0), FOREVER) for _ in range(3)]
        with pytest.raises(Overloaded) as caught:
            batcher.admit(1, FOREVER)
        assert caught.value.retry_after_s > 0
        engine.gate.set()
        await asyncio.gather(*futures)
        batcher.admit(1, FOREVER)
        await batcher.submit(rows(1.0), FOREVER)

    run(scenario)


def test_cancelled_requests_free_their_places_in_the_queue() -> None:
    async def scenario() -> None:
        now = 1000.0
        engine = Engine(2, 1)
        engine.gate.clear()
        batcher = Batcher(engine.run, Slots(1), BatcherLimits(2, 4), CURVE, clock=lambda: now)
        futures = [batcher.submit(rows(1.0, 2.0), FOREVER)]
        await asyncio.sleep(0)  # it runs
        futures += [batcher.submit(rows(1.0, 2.0), FOREVER) for _ in range(2)]
        with pytest.raises(Overloaded):
            batcher.admit(1, FOREVER)
        futures[1].set_exception(Cancelled("gone"))
        now += 2 * SWEEP_SECONDS
        batcher.admit(1, FOREVER)
        futures.append(batcher.submit(rows(3.0), FOREVER))
        engine.gate.set()
        assert isinstance((await asyncio.gather(*futures, return_exceptions=True))[1], Cancelled)

    run(scenario)


def test_a_request_that_the_queue_would_make_late_is_refused() -> None:
    async def scenario() -> None:
        now = 1000.0
        engine = Engine(2, 1)
        engine.gate.clear()
        batcher = Batcher(engine.run, Slots(1), BatcherLimits(2, 100), CURVE, clock=lambda: now)
        futures = [batcher.submit(rows(1.0, 2.0), FOREVER)]
        await asyncio.sleep(0)  # it runs
        futures += [batcher.submit(rows(1.0, 2.0), FOREVER) for _ in range(9)]
        with pytest.raises(Overloaded, match="past the deadline"):
            batcher.admit(1, now + 0.002)
        engine.gate.set()
        await asyncio.gather(*futures)

    run(scenario)


def test_rows_that_are_being_decoded_count_as_waiting() -> None:
    async def scenario() -> None:
        _, batcher = make(limit=2, queue=4)
        with batcher.arrival(2, FOREVER), batcher.arrival(2, FOREVER):
            with pytest.raises(Overloaded, match="4 images wait"):
                batcher.admit(1, FOREVER)
            with pytest.raises(Overloaded), batcher.arrival(1, FOREVER):
                pass
        batcher.admit(4, FOREVER)

    run(scenario)


def test_only_rows_that_run_earlier_delay_a_request() -> None:
    """Rows that are being decoded count too. Priority and deadline decide which rows run earlier."""

    async def scenario() -> None:
        now = 1000.0
        batcher = Batcher(Engine(1, 1).run, Slots(1), BatcherLimits(1, 100), CURVE, clock=lambda: now)
        with batcher.arrival(40, now + 10.0):
            batcher.admit(1, now + 0.01)  # an earlier deadline
            batcher.admit(1, FOREVER, priority=1)  # more urgent, despite its deadline
            with pytest.raises(Overloaded, match="80 images wait"), batcher.arrival(40, now + 10.0):
                batcher.admit(1, now + 10.1, ready_in=10.0)

    run(scenario)


def test_a_request_that_decoding_would_make_late_is_refused_even_if_the_engine_is_idle() -> None:
    async def scenario() -> None:
        now = 1000.0
        batcher = Batcher(Engine(8, 1).run, Slots(1), BatcherLimits(8, 100), CURVE, clock=lambda: now)
        batcher.admit(1, now + 1.0, ready_in=0.5)
        with pytest.raises(Overloaded, match="past the deadline"):
            batcher.admit(1, now + 1.0, ready_in=0.9)

    run(scenario)


def test_expired_requests_never_run() -> None:
    async def scenario() -> None:
        now = 0.0
        engine = Engine(8, 1)
        engine.gate.clear()
        batcher = Batcher(engine.run, Slots(1), BatcherLimits(8, 100), CURVE, clock=lambda: now)
        first = batcher.submit(rows(1.0), FOREVER)
        await asyncio.sleep(0)
        late = batcher.submit(rows(2.0), 5.0)
        await asyncio.sleep(0)
        now = 6.0
        engine.gate.set()
        await first
        with pytest.raises(DeadlineExceeded):
            await late
        assert [len(batch) for batch in engine.batches] == [1]

    run(scenario)


def test_an_answer_after_the_deadline_is_replaced_by_an_error() -> None:
    async def scenario() -> None:
        now = 0.0
        engine = Engine(8, 1)
        engine.gate.clear()
        batcher = Batcher(engine.run, Slots(1), BatcherLimits(8, 100), CURVE, clock=lambda: now)
        future = batcher.submit(rows(1.0), 5.0)
        await asyncio.sleep(0)
        now = 6.0
        engine.gate.set()
        with pytest.raises(DeadlineExceeded, match="while the engine ran"):
            await future

    run(scenario)


def test_requests_expire_while_the_engine_hangs() -> None:
    async def scenario() -> None:
        engine, batcher = make()
        engine.gate.clear()
        loop_now = time.monotonic()
        stuck = batcher.submit(rows(1.0), loop_now + 0.02)
        await asyncio.sleep(0)
        waiting = batcher.submit(rows(2.0), loop_now + 0.01)
        with pytest.raises(DeadlineExceeded, match="waited"):
            await waiting
        with pytest.raises(DeadlineExceeded, match="engine ran"):
            await stuck
        engine.gate.set()
        assert (await batcher.submit(rows(3.0), FOREVER)).logits.item() == 3.0

    run(scenario)


def test_batches_are_as_large_as_the_deadlines_allow() -> None:
    """A batch of eight takes 4 ms. A request with 5 ms left would be late if it waited for such a batch and then ran."""

    async def scenario() -> None:
        now = 1000.0
        engine = Engine(8, 1)
        engine.gate.clear()
        batcher = Batcher(engine.run, Slots(1), BatcherLimits(8, 100), CURVE, clock=lambda: now)
        futures = [batcher.submit(rows(0.0), now + 0.005) for _ in range(9)]
        engine.gate.set()
        await asyncio.gather(*futures, return_exceptions=True)
        assert max(len(batch) for batch in engine.batches) == 1
        futures = [batcher.submit(rows(0.0), now + 5.0) for _ in range(9)]
        await asyncio.gather(*futures)
        assert max(len(batch) for batch in engine.batches) == 8

    run(scenario)
