"""The batcher: batches, slots, priorities, and failures of an engine."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from convoy.errors import Cancelled, EngineFailed, InvalidInput, NotReady
from serve.batching.batcher import Batcher
from serve.batching.line import BatcherLimits
from serve.batching.results import Answer
from serve.batching.slots import Slots
from tests.serve.batching.row_engine import CURVE, FOREVER, POISON, Engine, Rows, make, rows, run

REQUESTS = st.lists(
    st.tuples(st.integers(1, 8), st.sampled_from(["plain", "poison", "cancel", "urgent"]), st.booleans()), max_size=60
)


@settings(deadline=None)
@given(REQUESTS, st.integers(1, 3))
def test_every_request_ends_once_with_its_own_rows(plan: list[tuple[int, str, bool]], slots: int) -> None:
    """No batch exceeds the limit, row i gets answer i, and a batch that fails fails only its own requests."""

    async def scenario() -> None:
        engine, batcher = make(8, slots)
        submitted: list[tuple[Rows, str, asyncio.Future[Answer]]] = []
        for number, (size, kind, pause) in enumerate(plan):
            values = np.arange(size, dtype=np.float32)[:, np.newaxis] + number * 100
            if kind == "poison":
                values[-1] = POISON
            future = batcher.submit(values, FOREVER, 1 if kind == "urgent" else 0)
            if kind == "cancel":
                future.set_exception(Cancelled("gone"))
            submitted.append((values, kind, future))
            if pause:
                await asyncio.sleep(0)
        results = await asyncio.gather(*(future for _, _, future in submitted), return_exceptions=True)
        poisoned = [batch for batch in engine.batches if (batch == POISON).any()]
        for (values, kind, _), result in zip(submitted, results, strict=True):
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


def test_a_batch_is_formed_of_all_waiting_requests_when_a_slot_becomes_free() -> None:
    async def scenario() -> None:
        engine, batcher = make(limit=8)
        engine.gate.clear()
        futures = [batcher.submit(rows(0.0), FOREVER)]
        await asyncio.sleep(0)
        futures += [batcher.submit(rows(float(value)), FOREVER) for value in range(1, 6)]
        await asyncio.sleep(0)
        assert [len(batch) for batch in engine.batches] == [1]
        engine.gate.set()
        await asyncio.gather(*futures)
        assert [len(batch) for batch in engine.batches] == [1, 5]

    run(scenario)


def test_requests_of_one_turn_of_the_event_loop_run_together() -> None:
    async def scenario() -> None:
        engine, batcher = make(limit=4)
        await asyncio.gather(*(batcher.submit(rows(float(value)), FOREVER) for value in range(6)))
        assert [len(batch) for batch in engine.batches] == [4, 2]

    run(scenario)


def test_short_runs_on_the_event_loop_leave_a_turn_to_others_between_two_batches() -> None:
    async def scenario() -> None:
        batches = turns = 0

        async def answer(batch: Rows) -> Rows:
            nonlocal batches
            batches += 1
            return batch

        batcher = Batcher(answer, Slots(1), BatcherLimits(2, 100), CURVE)
        waiting = asyncio.gather(*(batcher.submit(rows(1.0), FOREVER) for _ in range(20)))
        while not waiting.done():
            await asyncio.sleep(0)
            turns += 1
        assert batches == 10
        assert turns >= batches

    run(scenario)


def test_a_request_after_a_failed_batch_is_answered() -> None:
    async def scenario() -> None:
        _, batcher = make()
        with pytest.raises(EngineFailed) as caught:
            await batcher.submit(rows(POISON), FOREVER)
        assert "secret" not in str(caught.value)
        answer = await batcher.submit(rows(3.0), FOREVER)
        assert answer.logits.item() == 3.0

    run(scenario)


def test_a_batch_fails_if_the_engine_answers_too_few_rows() -> None:
    async def short(batch: Rows) -> NDArray[np.float32]:
        return batch[:-1].astype(np.float32)

    async def scenario() -> None:
        batcher = Batcher(short, Slots(1), BatcherLimits(8, 100), CURVE)
        with pytest.raises(EngineFailed, match="1 rows for 2"):
            await batcher.submit(rows(1.0, 2.0), FOREVER)

    run(scenario)


def test_batchers_that_share_an_engine_take_turns() -> None:
    async def scenario() -> None:
        engine, slots = Engine(1, 1), Slots(1)
        batchers = [Batcher(engine.run, slots, BatcherLimits(1, 100), CURVE) for _ in range(2)]
        futures = [batchers[0].submit(rows(0.0), FOREVER) for _ in range(6)]
        futures += [batchers[1].submit(rows(1.0), FOREVER) for _ in range(3)]
        await asyncio.gather(*futures)
        assert [batch.item() for batch in engine.batches] == [0, 1, 0, 1, 0, 1, 0, 0, 0]
        assert slots.taken == 0

    run(scenario)


def test_slots_beyond_the_eager_ones_run_only_full_batches() -> None:
    async def scenario() -> None:
        engine, slots = Engine(4, 2), Slots(2, eager=1)
        engine.gate.clear()
        batcher = Batcher(engine.run, slots, BatcherLimits(4, 100), CURVE)
        futures = [batcher.submit(rows(0.0), FOREVER)]
        await asyncio.sleep(0)
        futures += [batcher.submit(rows(0.0), FOREVER) for _ in range(3)]
        await asyncio.sleep(0)
        assert [len(batch) for batch in engine.batches] == [1]
        futures += [batcher.submit(rows(0.0), FOREVER) for _ in range(2)]
        await asyncio.sleep(0)
        assert [len(batch) for batch in engine.batches] == [1, 4]
        engine.gate.set()
        await asyncio.gather(*futures)
        assert [len(batch) for batch in engine.batches] == [1, 4, 1]

    run(scenario)


def test_added_slots_are_used_immediately() -> None:
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


def test_close_finishes_running_batches_and_refuses_waiting_requests() -> None:
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


def test_requests_run_in_order_of_priority() -> None:
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


def test_a_request_larger_than_a_batch_is_an_error_of_the_caller() -> None:
    async def scenario() -> None:
        _, batcher = make(limit=2)
        with pytest.raises(ValueError, match="3 rows"):
            batcher.submit(rows(1.0, 2.0, 3.0), FOREVER)

    run(scenario)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_row_with_nan_logits_fails_only_its_own_request(value: float) -> None:
    """All rows share a batch. NaN in the input is the client's error, and the ranking of other rows does not change."""

    async def scenario() -> None:
        _, batcher = make(8)
        futures = [batcher.submit(values, FOREVER) for values in (rows(1, 2), rows(0, value), rows(3))]
        first, second, third = await asyncio.gather(*futures, return_exceptions=True)
        assert isinstance(second, InvalidInput)
        assert isinstance(first, Answer)
        assert isinstance(third, Answer)
        assert first.run.size == third.run.size == 5
        assert (first.logits.tolist(), third.logits.tolist()) == ([[1], [2]], [[3]])
        assert first.run.ranking.probabilities == [[1.0]] * 5
        await batcher.close()

    run(scenario)


def test_nan_for_valid_pixels_is_the_engines_failure() -> None:
    async def scenario() -> None:
        async def answer_nan(rows: Rows) -> NDArray[np.float32]:
            return np.full((len(rows), 2), np.nan, np.float32)

        batcher = Batcher(answer_nan, Slots(1), BatcherLimits(8, 8), CURVE)
        with pytest.raises(EngineFailed, match="NaN or infinity"):
            await batcher.submit(np.zeros((1, 2), np.uint8), FOREVER)
        with pytest.raises(EngineFailed, match="NaN or infinity"):  # normalised pixels
            await batcher.submit(np.full((1, 2), 2.64, np.float32), FOREVER)
        with pytest.raises(InvalidInput, match="normalised pixels"):
            await batcher.submit(np.full((1, 2), -1e38, np.float32), FOREVER)
        await batcher.close()

    run(scenario)
