"""Folding of records into counts, in any chunks."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.plan import Load, Plan, Step, Target, Traffic
from loadtest.stats.fold import Fold
from loadtest.wire import outcomes
from loadtest.worker.records import RECORD

PLAN = Plan(
    Target("http://127.0.0.1:1"),
    (Traffic("a"), Traffic("b")),
    Load(steps=(Step(10, 9),)),
    2.0,
    0.5,
    deadline_ms=100,
    window_s=0.25,
)
OUTCOMES = st.sampled_from([200, 503, outcomes.GRPC, outcomes.GRPC + 8, outcomes.TIMEOUT])
ROWS = st.lists(
    st.tuples(
        st.floats(0, 2.49), st.floats(0, 0.01), st.floats(0, 0.5), OUTCOMES, st.integers(0, 1), st.integers(0, 2)
    ),
    max_size=60,
)


def records(rows: list[tuple[float, float, float, int, int, int]]) -> np.ndarray:
    table = np.zeros(len(rows), RECORD)
    for number, (scheduled, lag, service, outcome, traffic, arm) in enumerate(rows):
        table[number]["scheduled"], table[number]["sent"] = scheduled, scheduled + lag
        table[number]["done"], table[number]["outcome"] = scheduled + lag + service, outcome
        table[number]["traffic"], table[number]["arm"], table[number]["rows"] = traffic, arm, 1
    return table


@settings(deadline=None)
@given(ROWS, st.integers(1, 5))
def test_every_record_is_counted_once_in_any_chunks(
    rows: list[tuple[float, float, float, int, int, int]], chunks: int
) -> None:
    table, at_once, in_chunks = records(rows), Fold(PLAN), Fold(PLAN)
    at_once.add(table, ("", "x", "y"))
    for chunk in np.array_split(table, chunks):
        in_chunks.add(chunk, ("", "x", "y"))
    for fold in (at_once, in_chunks):
        assert sum(fold.account.values()) == len(rows) == fold.warmup + fold.total.requests
        assert sum(group.requests for group in fold.by_model.values()) == fold.total.requests
        assert fold.windows.due.sum() == len(rows)
        assert fold.total.latency.total == fold.total.ok >= fold.total.good
        assert fold.windows.latency[fold.windows.warmup :].sum() == fold.total.ok
    assert np.array_equal(at_once.windows.latency, in_chunks.windows.latency)
    assert np.array_equal(at_once.windows.in_flight, in_chunks.windows.in_flight)
    assert at_once.total.outcomes == in_chunks.total.outcomes


def test_feedback_is_counted_separately() -> None:
    table = records([(1.0, 0.0, 0.1, 200, 0, 0), (1.0, 0.0, 0.1, 404, 0, 0)])
    table["feedback"][1] = 1
    fold = Fold(PLAN)
    fold.add(table, ("",))
    assert fold.account == {200: 1}
    assert fold.feedback == {404: 1}


def test_a_window_begins_where_the_warm_up_ends() -> None:
    windows = Fold(PLAN).windows
    assert (windows.warmup, len(windows), windows.origin) == (2, 10, 0.0)
    assert windows.of(np.array([0.0, 0.49, 0.5, 2.4, 99.0])).tolist() == [0, 1, 2, 9, 9]
