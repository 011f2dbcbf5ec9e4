"""Sweeps, spikes and soaks of simulated servers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from convoy.errors import ConfigError
from loadtest.plan import Plan
from loadtest.report.values import Report
from loadtest.search.sweeps import measure_spike, parse_series, read_soak, sweep_concurrency, sweep_rates
from tests.loadtest.simulated import Server, plan_at, report_of


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("10,20", (10, 20)),
        ("10:40:10", (10, 20, 30, 40)),
        ("1:32:x2", (1, 2, 4, 8, 16, 32)),
        ("5", (5,)),
        ("5:5:1", (5,)),
    ],
)
def test_series_are_parsed(text: str, values: tuple[float, ...]) -> None:
    assert parse_series(text) == values


@pytest.mark.parametrize("text", ["", "a", "1:2", "0,1", "-5", "1:5:y"])
def test_invalid_series_are_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_series(text)


def test_a_sweep_measures_each_rate_once() -> None:
    server = Server(100)
    reports = sweep_rates(plan_at(1), (10, 20, 50), server.measure)
    assert server.calls == [10, 20, 50]
    assert [report.name for report in reports] == ["10/s", "20/s", "50/s"]
    assert [report.plan["load"]["steps"][0]["rate"] for report in reports] == [10, 20, 50]


def test_an_interrupted_sweep_keeps_the_runs_so_far() -> None:
    server = Server(100)

    def measure(plan: Plan) -> Report:
        return replace(server.measure(plan), stopped=len(server.calls) == 2)

    assert [report.name for report in sweep_rates(plan_at(1), (10, 20, 50), measure)] == ["10/s", "20/s"]


def test_a_concurrency_sweep_is_closed_loop() -> None:
    seen: list[Plan] = []

    def measure(plan: Plan) -> Report:
        seen.append(plan)
        return report_of(plan, np.full(100, 0.01))

    sweep_concurrency(plan_at(1), (1, 4), measure)
    assert [plan.load.concurrency for plan in seen] == [1, 4]
    assert not any(plan.load.steps for plan in seen)


def spiked(recovers_after_s: float) -> Report:
    """A report with 100 ms from the spike at 5 s until `recovers_after_s` after its end at 7 s, and 10 ms elsewhere."""

    def measure(plan: Plan) -> Report:
        at = np.linspace(0, plan.end_s, 3000, endpoint=False)
        late = (at >= 5) & (at < 7 + recovers_after_s)
        return report_of(plan, np.where(late, 0.1, 0.01), failed=(at >= 6) & (at < 6.5))

    spike = measure_spike(plan_at(100), 5, 5, 2, 8, measure)
    expected = recovers_after_s if recovers_after_s < 7 else None
    assert spike.recovery_s == (None if expected is None else pytest.approx(expected, abs=0.51))
    assert spike.failed_in_spike == 100
    assert spike.failed_after == 0
    assert spike.normal_p99_ms == pytest.approx(10, rel=0.01)
    assert spike.worst_p99_ms == pytest.approx(100, rel=0.01)
    return spike.report


@pytest.mark.parametrize("seconds", [0.0, 1.0, 3.5, 100.0])
def test_recovery_is_counted_from_the_end_of_the_spike(seconds: float) -> None:
    report = spiked(seconds)
    assert report.steadiness.steady is None
    assert [step["rate"] for step in report.plan["load"]["steps"]] == [100, 500, 100]


def test_a_soak_reports_what_drifted() -> None:
    plan = replace(plan_at(100), duration_s=60.0)
    stable = read_soak(report_of(plan, np.random.default_rng(1).lognormal(-4, 0.1, 6000)))
    assert stable.findings == ()
    leaking = read_soak(report_of(plan, np.linspace(0.01, 0.02, 6000)))
    assert any(text.startswith("p50 drifted by +") for text in leaking.findings)
