"""Arrival processes, schedules of workers, and recorded arrival times."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.arrivals import Due, Picks, arrival_blocks, closed_schedule, open_schedule, read_recorded
from loadtest.plan import Load, Payload, Plan, Process, Step, Target, Traffic

PROCESSES = st.sampled_from(["constant", "poisson", "gamma"])
STEPS = st.lists(st.builds(Step, st.floats(0, 300), st.floats(0.1, 5)), min_size=1, max_size=4).map(tuple)


def times(load: Load, seed: int, end: float, block: int = 4096) -> np.ndarray:
    return np.concatenate(list(arrival_blocks(load, seed, end, block)))


def plan_of(
    load: Load, *, seed: int = 1, workers: int = 1, end: float = 2.0, weights: tuple[float, ...] = (1.0,)
) -> Plan:
    traffic = tuple(Traffic(f"m{number}", weight=weight, payload=Payload()) for number, weight in enumerate(weights))
    return Plan(Target("http://127.0.0.1:1"), traffic, load, duration_s=end, warmup_s=0.0, seed=seed, workers=workers)


@settings(max_examples=60, deadline=None)
@given(PROCESSES, STEPS, st.integers(0, 2**31), st.floats(0.1, 12), st.integers(1, 500))
def test_arrivals_ascend_within_the_run_and_do_not_depend_on_the_block_size(
    process: Process, steps: tuple[Step, ...], seed: int, end: float, block: int
) -> None:
    load = Load(process=process, steps=steps)
    found = times(load, seed, end)
    assert np.all(np.diff(found) >= 0)
    assert found.size == 0 or (found[0] >= 0 and found[-1] < end + 1e-9)
    assert np.allclose(found, times(load, seed, end, block))


@settings(max_examples=40, deadline=None)
@given(PROCESSES, st.floats(50, 500), st.integers(0, 2**31))
def test_the_rate_matches_the_plan(process: Process, rate: float, seed: int) -> None:
    seconds = 200.0
    expected = rate * seconds
    found = times(Load(process=process, steps=(Step(rate, 1.0),), burstiness=2.0), seed, seconds).size
    deviation = {"constant": 0.0, "poisson": 1.0, "gamma": 2.0}[process] * expected**0.5
    assert abs(found - expected) <= 6 * deviation + 1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.5, 5))
def test_the_burstiness_of_gaps_matches_the_plan(seed: int, burstiness: float) -> None:
    gaps = np.diff(times(Load(process="gamma", steps=(Step(100, 1.0),), burstiness=burstiness), seed, 400.0))
    assert gaps.std() / gaps.mean() == pytest.approx(burstiness, rel=0.25)


def test_poisson_counts_have_equal_variance_and_mean() -> None:
    found = times(Load(process="poisson", steps=(Step(100, 1.0),)), 7, 1000.0)
    counts = np.bincount(found.astype(int), minlength=1000)
    assert counts.var() / counts.mean() == pytest.approx(1.0, abs=0.2)


def test_steps_change_the_rate_and_rate_zero_has_no_arrivals() -> None:
    found = times(Load(process="constant", steps=(Step(10, 2), Step(0, 3), Step(100, 1))), 1, 7.0)
    counts = np.bincount((found + 1e-9).astype(int), minlength=7)
    assert counts[:2].tolist() == [10, 10]
    assert counts[2:5].sum() <= 1
    assert counts[5:7].tolist() == pytest.approx([100, 100], abs=1)


@settings(max_examples=30, deadline=None)
@given(PROCESSES, st.integers(0, 2**31), st.integers(1, 7), st.lists(st.floats(0.1, 9), min_size=1, max_size=3))
def test_workers_share_the_schedule_without_gaps_or_overlap(
    process: Process, seed: int, workers: int, weights: list[float]
) -> None:
    load = Load(process=process, steps=(Step(200, 1),))
    counts = tuple(3 + number for number in range(len(weights)))
    complete = list(open_schedule(plan_of(load, seed=seed, weights=tuple(weights)), counts, 0))
    parts: list[Due] = []
    for worker in range(workers):
        parts += open_schedule(plan_of(load, seed=seed, workers=workers, weights=tuple(weights)), counts, worker)
    assert sorted(parts, key=lambda due: due.index) == complete


@given(st.integers(0, 2**31), st.integers(1, 40))
def test_each_payload_is_used_once_before_any_is_used_again(seed: int, count: int) -> None:
    picks = Picks(plan_of(Load(concurrency=1), seed=seed), (count,)).take(count * 3)
    items = [item for _, item in picks]
    assert sorted(items[:count]) == sorted(items[count : 2 * count]) == list(range(count))


def test_weights_set_the_shares_of_the_mix() -> None:
    picks = Picks(plan_of(Load(concurrency=1), weights=(6, 3, 1)), (5, 5, 5)).take(20_000)
    shares = np.bincount([traffic for traffic, _ in picks]) / 20_000
    assert shares.tolist() == pytest.approx([0.6, 0.3, 0.1], abs=0.02)


def test_closed_loop_workers_send_different_requests() -> None:
    plan = plan_of(Load(concurrency=4), workers=2)
    taken = [list(islice(closed_schedule(plan, (9,), worker), 50)) for worker in (0, 1)]
    assert {due.index for due in taken[0]} | {due.index for due in taken[1]} == set(range(100))


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=30))
def test_recorded_times_are_sorted_and_begin_at_zero(values: list[float]) -> None:
    read = read_recorded("# a recording\n" + "\n".join(repr(value) for value in values))
    assert read[0] == 0
    assert len(read) == len(values)
    assert list(read) == sorted(read)
    assert times(Load(recorded=read), 1, read[-1]).tolist() == pytest.approx(list(read))


@pytest.mark.parametrize("text", ["", "# nothing\n", "1.0\nsoon\n", "1.0\nnan\n", "inf\n", "1\n" + "x" * 10**6])
def test_invalid_recordings_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^'soon' is not a number|no arrival times|not a (finite )?number") as found:
        read_recorded(text)
    assert len(str(found.value)) < 100
