"""Judging a fault: every request is accounted for, and the disturbance ends with the last disturbed window."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.chaos.faults import FAULTS, Fault
from benchmarks.chaos.judge import judge
from benchmarks.chaos.page import table
from loadtest.coordinator import Run
from loadtest.plan import Load, Plan, Step, Target, Traffic
from loadtest.stats.fold import Fold
from loadtest.wire.outcomes import RESET
from loadtest.worker.records import RECORD

FAULT = Fault("one", "something", "no request fails", lambda stage: None, most_failed=1, within_seconds=3)


def run_of(*requests: tuple[float, float, int], issued: int | None = None) -> Run:
    """A finished run of (due, seconds, outcome)."""
    plan = Plan(Target("http://127.0.0.1:1"), (Traffic("m"),), Load(steps=(Step(1, 10),)), 10, 0, window_s=0.5)
    run = Run(plan, Fold(plan))
    records = np.zeros(len(requests), RECORD)
    for record, (due, seconds, outcome) in zip(records, requests, strict=True):
        record["scheduled"] = record["sent"] = due
        record["done"], record["outcome"] = due + seconds, outcome
    run.fold.add(records, ("",))
    run.issued = {0: len(requests) if issued is None else issued}
    return run


def test_a_run_without_failures_is_undisturbed() -> None:
    result = judge(FAULT, run_of((1, 0.1, 200), (6, 0.1, 200)), injected=5, recovery=0)
    assert (result.failed, result.disturbed_s, result.kept, result.seen) == (0, 0, True, {})


def test_a_failure_disturbs_until_the_end_of_its_window() -> None:
    result = judge(FAULT, run_of((5.1, 0, RESET), (6.2, 0.1, 200)), injected=5, recovery=0)
    assert (result.failed, result.disturbed_s, result.kept) == (1, 0.5, True)
    assert list(result.seen.values()) == [1]


def test_a_slow_answer_counts_as_a_disturbance() -> None:
    assert judge(FAULT, run_of((9.2, 2.0, 200)), injected=5, recovery=0).disturbed_s == pytest.approx(4.5)
    assert not judge(FAULT, run_of((9.2, 2.0, 200)), injected=5, recovery=0).kept


def test_more_failures_than_promised_break_the_promise() -> None:
    assert not judge(FAULT, run_of((5.1, 0, 500), (5.2, 0, 503)), injected=5, recovery=0).kept


def test_an_unaccounted_request_is_an_error() -> None:
    with pytest.raises(ValueError, match="2 requests were sent and 1 accounted for"):
        judge(FAULT, run_of((1, 0.1, 200), issued=2), injected=5, recovery=0)


def test_a_disturbance_before_the_fault_is_an_error() -> None:
    with pytest.raises(ValueError, match="free the machine"):
        judge(FAULT, run_of((1, 2.0, 200), (6, 0.1, 200)), injected=5, recovery=0)


def test_the_page_lists_faults_that_were_not_measured() -> None:
    first, *others = FAULTS
    document = judge(first, run_of((5.1, 0, RESET)), injected=5, recovery=1).document() | {
        "cores": 2,
        "day": "2026-01-01",
    }
    page = table(FAULTS, {first.name: document})
    assert "1 × reset" in page
    assert "**no**" in page
    assert all(fault.happens in page for fault in others)


def test_rows_stay_until_their_fault_is_measured_again() -> None:
    first, second, *_ = FAULTS
    document = judge(first, run_of((6, 0.1, 200)), injected=5, recovery=1).document() | {
        "cores": 2,
        "day": "2026-01-01",
    }
    page = table(FAULTS, {second.name: document}, table(FAULTS, {first.name: document}))
    rows = [line for line in page.splitlines() if "2026-01-01" in line]
    assert [line.split(" | ")[0] for line in rows] == [f"| {fault.happens}" for fault in (first, second)]
    page = table(FAULTS, {first.name: document | {"day": "2026-01-02"}}, page)
    assert page.count("2026-01-01") == page.count("2026-01-02") == 1
