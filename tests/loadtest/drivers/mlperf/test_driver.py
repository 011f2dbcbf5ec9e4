"""The search for a rate, and runs with failures."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convoy.errors import ConvoyError
from loadtest.drivers.mlperf.driver import HIGHEST_SHARE, STEP, TOLERANCE, find_rate, run_mlperf
from loadtest.drivers.mlperf.plan import MlperfPlan
from tests.loadtest.drivers.mlperf.graphs import FailingSubject
from tests.loadtest.drivers.mlperf.views import Recorded


@given(limit=st.floats(0.05, 3.0), capacity=st.floats(0.5, 50_000))
def test_the_search_ends_just_below_the_limit(limit: float, capacity: float) -> None:
    found = find_rate(capacity, lambda rate: rate <= limit * capacity)
    assert found <= limit * capacity
    assert found >= (min(limit, HIGHEST_SHARE / STEP) - TOLERANCE) * capacity


def test_a_bound_that_no_rate_keeps_is_an_error_with_the_remedy() -> None:
    with pytest.raises(ConvoyError, match="raise --latency-ms"):
        find_rate(100.0, lambda rate: False)


def test_failed_samples_make_the_figures_unusable(tmp_path: Path) -> None:
    plan = MlperfPlan(FailingSubject(), "server", tmp_path, qps=100.0, latency_ms=900, duration_s=0.2)
    report = run_mlperf(plan, Recorded())
    assert report.result is not None
    assert report.answered + report.failed == report.result.queries
    assert abs(report.answered - report.failed) <= 1
    assert report.said == {"out of luck": "nothing left"}
    assert report.problems == (f"{report.failed} samples failed, which LoadGen counts as answered",)
