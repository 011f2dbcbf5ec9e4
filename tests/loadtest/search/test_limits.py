"""The search for a rate limit on simulated servers."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy.errors import ConfigError
from loadtest.plan import Load, Plan
from loadtest.report.values import Report
from loadtest.search.limits import Goal, find_limit, judge
from tests.loadtest.simulated import Server, plan_at, report_of

TARGET_MS = 100.0
QUICK = {"probe_s": 1.0, "confirm_s": 2.0}


def true_limit(capacity: float) -> float:
    """The rate at which the p99 of an M/M/1 queue equals the target."""
    return capacity - math.log(100) / (TARGET_MS / 1000)


@settings(max_examples=8, deadline=None)
@given(st.floats(120, 800), st.floats(5, 500))
def test_the_limit_is_found_from_any_start(capacity: float, start: float) -> None:
    server = Server(capacity)
    found = find_limit(plan_at(1), Goal("p99", TARGET_MS, start_rate=start, **QUICK), server.measure)
    assert found.rate is not None
    assert not found.at_least
    assert 0.9 * true_limit(capacity) <= found.rate <= 1.01 * true_limit(capacity)
    last = found.probes[-1]
    assert (last.confirming, last.outcome, last.rate) == (True, "kept", found.rate)
    assert len(server.calls) == len(found.probes) < 30


def test_noise_leads_to_confirmation_at_a_lower_rate() -> None:
    server = Server(300, noise=0.05)
    found = find_limit(plan_at(1), Goal("p99", TARGET_MS, tolerance=0.03, **QUICK), server.measure)
    assert found.rate is None or found.rate < 1.15 * true_limit(300)
    assert found.rate is None or found.probes[-1].confirming


def test_a_target_that_the_lowest_rate_misses_has_no_limit() -> None:
    found = find_limit(plan_at(1), Goal("p50", 1.0, start_rate=0.4, **QUICK), Server(2).measure)
    assert found.rate is None
    assert "even at" in found.explanation


def test_the_limit_is_a_lower_bound_if_the_generator_ends_the_search() -> None:
    # Above the generator's own limit the target is missed too, but those runs say nothing about the server.
    server = Server(400, generator_limit=180)
    found = find_limit(plan_at(1), Goal("p99", 12.0, start_rate=10, **QUICK), server.measure)
    assert found.at_least or found.rate is not None
    assert found.rate is not None
    assert found.rate <= 180
    assert any(probe.outcome == "generator" for probe in found.probes) == found.at_least


def test_an_interrupted_search_reports_the_best_rate_so_far() -> None:
    server = Server(400)

    def measure(plan: Plan) -> Report:
        return replace(server.measure(plan), stopped=len(server.calls) == 3)

    found = find_limit(plan_at(1), Goal("p99", TARGET_MS, start_rate=20, **QUICK), measure)
    assert found.rate is None
    assert "40/s was the highest rate that kept the target" in found.explanation
    assert len(found.probes) == 2
    with pytest.raises(ConfigError, match="before the first probe"):
        find_limit(plan_at(1), Goal(), lambda plan: replace(server.measure(plan), stopped=True))


def test_probes_last_long_enough_for_the_quantile() -> None:
    found = find_limit(plan_at(1), Goal("p99", TARGET_MS, start_rate=20, **QUICK), Server(100).measure)
    assert all(probe.report.seconds * probe.rate >= 500 for probe in found.probes)


def test_failures_count_as_infinitely_late() -> None:
    plan = plan_at(250)
    fine, failed = np.full(1000, 0.01), np.arange(1000) % 50 == 0
    assert judge(report_of(plan, fine), Goal("p99", TARGET_MS), confirming=False)[0] == "kept"
    outcome, reason = judge(report_of(plan, fine, failed), Goal("p99", TARGET_MS), confirming=False)
    assert (outcome, reason) == ("broken", "2.0% failed")


def test_a_growing_queue_does_not_pass_the_confirmation() -> None:
    report = report_of(plan_at(250), np.linspace(0.01, 0.05, 1000))
    assert judge(report, Goal("p99", TARGET_MS), confirming=False)[0] == "kept"
    assert judge(report, Goal("p99", TARGET_MS), confirming=True)[0] == "broken"


def test_what_cannot_be_searched_is_refused() -> None:
    with pytest.raises(ConfigError, match="open loop"):
        find_limit(replace(plan_at(1), load=Load(concurrency=2)), Goal(), Server(10).measure)
    with pytest.raises(ConfigError, match="not one of"):
        Goal("p98")
    with pytest.raises(ConfigError, match="positive"):
        Goal("p99", 0.0)
