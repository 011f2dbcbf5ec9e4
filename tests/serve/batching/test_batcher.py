from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from convoy.errors import Cancelled, DeadlineExceeded, EngineFailed, InvalidInput, NotReady, Overloaded
from serve.batching.batcher import SWEEP_SECONDS, Batcher
from serve.batching.latency_curve import LatencyCurve
from serve.batching.line import BatcherLimits
from serve.batching.results import Answer
from serve.batching.slots import Slots

CURVE = LatencyCurve((1, 8), (0.001, 0.004))
FOREVER = 1e12
POISON = -1.0

Rows = NDArray[Any]


class Engine:
    """An engine whose logits are the rows themselves; a row of POISON breaks the batch it is in."""

    def __init__(self, limit: int, slots: int) -> None:
        self.limit, self.slots = limit, slots
        self.running = 0
        self.batches: list[Rows] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def run(self, rows: Rows) -> NDArray[np.float32]:
        assert len(rows) <= self.limit
        self.running += 1
        assert self.running <= self.slots
        try:
            self.batches.append(rows)
            await asyncio.sleep(0)
            await self.gate.wait()
            if (rows == POISON).any():
                raise RuntimeError("secret detail")
            return rows.astype(np.float32)
        finally:
            self.running -= 1


def make(limit: int = 8, slots: int = 1, queue: int = 10_000) -> tuple[Engine, Batcher]:
    engine = Engine(limit, slots)
    return engine, Batcher(engine.run, Slots(slots), BatcherLimits(limit, queue), CURVE)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 30))


def rows(*values: float) -> Rows:
    return np.array(values, np.float32)[:, np.newaxis]


requests = st.lists(
    st.tuples(st.integers(1, 8), st.sampled_from(["plain", "poison", "cancel", "urgent"]), st.booleans()), max_size=60
)


@settings(deadline=None)
@given(requests, st.integers(1, 3))
def test_every_request_ends_once_with_its_own_rows(plan: list[tuple[int, str, bool]], slots: int) -> None:
    """Never over the limit, none lost, row i answered with row i; a failing batch fails its own requests only."""

    async def scenario() -> None:
        engine, batcher = make(8, slots)
        asked: list[tuple[Rows, str, asyncio.Future[Answer]]] = []
        for number, (size, kind, pause) in enumerate(plan):
            values = np.arange(size, dtype=np.float32)[:, np.newaxis] + number * 100
            if kind == "poison":
                values[-1] = POISON
            future = batcher.submit(values, FOREVER, 1 if kind == "urgent" else 0)
            if kind == "cancel":
                future.set_exception(Cancelled("gone"))
            asked.append((values, kind, future))
            if pause:
                await asyncio.sleep(0)
        results = await asyncio.gather(*(future for _, _, future in asked), return_exceptions=True)
        poisoned = [batch for batch in engine.batches if (batch == POISON).any()]
        for (values, kind, _), result in zip(asked, results, strict=True):
            if kind == "cancel":
                assert isinstance(result, Cancelled)
            elif isinstance(result, BaseException):
                assert isinstance(result, EngineFailed)
                assert any(np.isin(values, batch).all() for batch in poisoned)
            else:
                np.testing.assert_array_equal(result.logits, values)
        await batcher.close()
        assert batcher.waiting_rows == 0

    run(scenario)


def test_a_batch_is_formed_when_a_slot_is_free_from_what_waits_then() -> None:
    async def scenario() -> None:
        engine, batcher = make(limit=8)
        engine.gate.clear()
        futures = [batcher.submit(rows(float(value)), FOREVER) for value in range(6)]
        await asyncio.sleep(0)
        assert [len(batch) for batch in engine.batches] == [1]
        engine.gate.set()
        await asyncio.gather(*futures)
        assert [len(batch) for batch in engine.batches] == [1, 5]

    run(scenario)


def test_good_request_after_a_bad_batch() -> None:
    async def scenario() -> None:
        _, batcher = make()
        with pytest.raises(EngineFailed) as caught:
            await batcher.submit(rows(POISON), FOREVER)
        assert "secret" not in str(caught.value)
        answer = await batcher.submit(rows(3.0), FOREVER)
        assert answer.logits.item() == 3.0

    run(scenario)


def test_an_engine_that_answers_too_few_rows_fails_the_batch() -> None:
    async def short(batch: Rows) -> NDArray[np.float32]:
        return batch[:-1].astype(np.float32)

    async def scenario() -> None:
        batcher = Batcher(short, Slots(1), BatcherLimits(8, 100), CURVE)
        with pytest.raises(EngineFailed, match="1 rows for 2"):
            await batcher.submit(rows(1.0, 2.0), FOREVER)

    run(scenario)


def test_full_queue_is_refused_at_once_and_says_when_to_return() -> None:
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


def test_requests_whose_clients_left_make_room() -> None:
    async def scenario() -> None:
        now = 1000.0
        engine = Engine(2, 1)
        engine.gate.clear()
        batcher = Batcher(engine.run, Slots(1), BatcherLimits(2, 4), CURVE, clock=lambda: now)
        futures = [batcher.submit(rows(1.0, 2.0), FOREVER) for _ in range(3)]
        with pytest.raises(Overloaded):
            batcher.admit(1, FOREVER)
        futures[1].set_exception(Cancelled("gone"))
        now += 2 * SWEEP_SECONDS
        batcher.admit(1, FOREVER)
        futures.append(batcher.submit(rows(3.0), FOREVER))
        engine.gate.set()
        assert isinstance((await asyncio.gather(*futures, return_exceptions=True))[1], Cancelled)

    run(scenario)


def test_a_deadline_that_the_queue_cannot_meet_is_refused_at_once() -> None:
    async def scenario() -> None:
        now = 1000.0
        engine = Engine(2, 1)
        engine.gate.clear()
        batcher = Batcher(engine.run, Slots(1), BatcherLimits(2, 100), CURVE, clock=lambda: now)
        futures = [batcher.submit(rows(1.0, 2.0), FOREVER) for _ in range(10)]
        with pytest.raises(Overloaded, match="past the deadline"):
            batcher.admit(1, now + 0.002)
        engine.gate.set()
        await asyncio.gather(*futures)

    run(scenario)


def test_expired_requests_leave_before_they_cost_a_run() -> None:
    async def scenario() -> None:
        now = 0.0
        engine = Engine(8, 1)
        engine.gate.clear()
        batcher = Batcher(engine.run, Slots(1), BatcherLimits(8, 100), CURVE, clock=lambda: now)
        first = batcher.submit(rows(1.0), FOREVER)
        late = batcher.submit(rows(2.0), 5.0)
        await asyncio.sleep(0)
        now = 6.0
        engine.gate.set()
        await first
        with pytest.raises(DeadlineExceeded):
            await late
        assert [len(batch) for batch in engine.batches] == [1]

    run(scenario)


def test_an_answer_after_the_deadline_is_a_deadline_exceeded() -> None:
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


def test_deadlines_are_told_while_the_engine_hangs() -> None:
    async def scenario() -> None:
        engine, batcher = make()
        engine.gate.clear()
        loop_now = time.monotonic()
        stuck = batcher.submit(rows(1.0), loop_now + 0.02)
        waiting = batcher.submit(rows(2.0), loop_now + 0.01)
        with pytest.raises(DeadlineExceeded, match="waited"):
            await waiting
        with pytest.raises(DeadlineExceeded, match="engine ran"):
            await stuck
        engine.gate.set()
        assert (await batcher.submit(rows(3.0), FOREVER)).logits.item() == 3.0

    run(scenario)


def test_rows_on_their_way_count_as_waiting() -> None:
    async def scenario() -> None:
        _, batcher = make(limit=2, queue=4)
        with batcher.arrival(2, FOREVER), batcher.arrival(2, FOREVER):
            with pytest.raises(Overloaded, match="4 images wait"):
                batcher.admit(1, FOREVER)
            with pytest.raises(Overloaded), batcher.arrival(1, FOREVER):
                pass
        batcher.admit(4, FOREVER)

    run(scenario)


def test_what_goes_behind_is_not_ahead() -> None:
    """Rows that are still being decoded count for whom they go before, by priority and deadline."""

    async def scenario() -> None:
        now = 1000.0
        batcher = Batcher(Engine(1, 1).run, Slots(1), BatcherLimits(1, 100), CURVE, clock=lambda: now)
        with batcher.arrival(40, now + 10.0):
            batcher.admit(1, now + 0.01)  # before them
            batcher.admit(1, FOREVER, priority=1)  # more urgent, whatever the deadline
            with pytest.raises(Overloaded, match="80 images wait"), batcher.arrival(40, now + 10.0):
                batcher.admit(1, now + 10.1, ready_in=10.0)

    run(scenario)


def test_decoding_that_would_end_too_late_is_refused_though_the_engine_is_idle() -> None:
    async def scenario() -> None:
        now = 1000.0
        batcher = Batcher(Engine(8, 1).run, Slots(1), BatcherLimits(8, 100), CURVE, clock=lambda: now)
        batcher.admit(1, now + 1.0, ready_in=0.5)
        with pytest.raises(Overloaded, match="past the deadline"):
            batcher.admit(1, now + 1.0, ready_in=0.9)

    run(scenario)


def test_runs_are_as_large_as_deadlines_allow() -> None:
    """Eight rows take 4 ms: where a request has 5 ms, runs of eight would make it late while it waits for one."""

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


def test_lines_that_share_an_engine_take_turns() -> None:
    async def scenario() -> None:
        engine, slots = Engine(1, 1), Slots(1)
        lines = [Batcher(engine.run, slots, BatcherLimits(1, 100), CURVE) for _ in range(2)]
        futures = [lines[0].submit(rows(0.0), FOREVER) for _ in range(6)]
        futures += [lines[1].submit(rows(1.0), FOREVER) for _ in range(3)]
        await asyncio.gather(*futures)
        assert [batch.item() for batch in engine.batches] == [0, 1, 0, 1, 0, 1, 0, 0, 0]
        assert slots.taken == 0

    run(scenario)


def test_slots_beyond_the_eager_ones_are_for_full_batches() -> None:
    async def scenario() -> None:
        engine, slots = Engine(4, 2), Slots(2, eager=1)
        engine.gate.clear()
        batcher = Batcher(engine.run, slots, BatcherLimits(4, 100), CURVE)
        futures = [batcher.submit(rows(0.0), FOREVER) for _ in range(4)]
        await asyncio.sleep(0)
        assert [len(batch) for batch in engine.batches] == [1]
        futures += [batcher.submit(rows(0.0), FOREVER) for _ in range(2)]
        await asyncio.sleep(0)
        assert [len(batch) for batch in engine.batches] == [1, 4]
        engine.gate.set()
        await asyncio.gather(*futures)
        assert [len(batch) for batch in engine.batches] == [1, 4, 1]

    run(scenario)


def test_more_slots_are_used_at_once() -> None:
    async def scenario() -> None:
        engine, slots = Engine(1, 3), Slots(1)
        engine.gate.clear()
        batcher = Batcher(engine.run, slots, BatcherLimits(1, 100), CURVE)
        futures = [batcher.submit(rows(0.0), FOREVER) for _ in range(4)]
        slots.resize(3, 3)
        await asyncio.sleep(0)
        assert engine.running == 3
        slots.resize(1, 1)
        engine.gate.set()
        await asyncio.gather(*futures)
        assert slots.taken == 0

    run(scenario)


def test_close_finishes_what_runs_and_refuses_what_waits() -> None:
    async def scenario() -> None:
        engine, batcher = make(limit=1)
        engine.gate.clear()
        running = batcher.submit(rows(1.0), FOREVER)
        waiting = batcher.submit(rows(2.0), FOREVER)
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(batcher.close())
        await asyncio.sleep(0)
        engine.gate.set()
        await closing
        assert (await running).logits.item() == 1.0
        with pytest.raises(NotReady):
            await waiting
        with pytest.raises(NotReady):
            batcher.submit(rows(3.0), FOREVER)

    run(scenario)


def test_urgent_requests_go_first() -> None:
    async def scenario() -> None:
        engine, batcher = make(limit=1)
        engine.gate.clear()
        futures = [batcher.submit(rows(0.0), FOREVER)]
        await asyncio.sleep(0)
        futures += [
            batcher.submit(rows(float(value)), FOREVER, priority) for value, priority in ((1, 0), (2, 3), (3, 1))
        ]
        engine.gate.set()
        await asyncio.gather(*futures)
        assert [batch.item() for batch in engine.batches] == [0, 3, 2, 1]

    run(scenario)


def test_more_rows_than_a_batch_holds_is_a_mistake_of_the_caller() -> None:
    async def scenario() -> None:
        _, batcher = make(limit=2)
        with pytest.raises(ValueError, match="3 rows"):
            batcher.submit(rows(1.0, 2.0, 3.0), FOREVER)

    run(scenario)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_row_without_a_distribution_fails_its_own_request_alone(value: float) -> None:
    """In one batch; whose input is no number either is told so, and the others are ranked as if it were not there."""

    async def scenario() -> None:
        _, batcher = make(8)
        asked = [
            batcher.submit(one, FOREVER) for one in (rows(9), rows(1, 2), rows(0, value), rows(3))
        ]  # one runs, then all
        _, first, second, third = await asyncio.gather(*asked, return_exceptions=True)
        assert isinstance(second, InvalidInput)
        assert isinstance(first, Answer)
        assert isinstance(third, Answer)
        assert first.run.size == third.run.size == 5
        assert (first.logits.tolist(), third.logits.tolist()) == ([[1], [2]], [[3]])
        assert first.run.ranking.probabilities == [[1.0]] * 5
        await batcher.close()

    run(scenario)


def test_bytes_that_get_no_answer_are_the_engines_failure() -> None:
    async def scenario() -> None:
        async def nothing(rows: Rows) -> NDArray[np.float32]:
            return np.full((len(rows), 2), np.nan, np.float32)

        batcher = Batcher(nothing, Slots(1), BatcherLimits(8, 8), CURVE)
        with pytest.raises(EngineFailed, match="NaN or infinity"):
            await batcher.submit(np.zeros((1, 2), np.uint8), FOREVER)
        with pytest.raises(EngineFailed, match="NaN or infinity"):  # normalised pixels
            await batcher.submit(np.full((1, 2), 2.64, np.float32), FOREVER)
        with pytest.raises(InvalidInput, match="normalised pixels"):
            await batcher.submit(np.full((1, 2), -1e38, np.float32), FOREVER)
        await batcher.close()

    run(scenario)
