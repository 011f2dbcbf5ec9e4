"""The wrk driver, and its agreement with this generator."""

from __future__ import annotations

import numpy as np
import pytest

from convoy.errors import ConfigError, ConvoyError
from loadtest.drivers.wrk import parse_output, run_wrk
from loadtest.plan import Load, Payload, Plan, Step, Target, Traffic
from loadtest.report.build import build_report
from loadtest.selfcheck.figures import measure_agreement, noop_server, simulated_engine
from tests.loadtest.conftest import Echo

OUTPUT = (
    'Running\n\nLOADTEST {"us":1000000,"requests":4,"status":1,"connect":0,'
    '"read":1,"write":0,"timeout":2,"latency":[[1000,3],[90000,1]]}\n'
)
TINY = Payload(side=8, format="png", count=5)


def test_the_output_of_wrk_is_parsed() -> None:
    found = parse_output(OUTPUT, "")
    assert (found.seconds, found.requests, found.not_2xx, found.lost, found.timeout) == (1.0, 4, 1, 1, 2)
    assert found.latency.sum() == 4
    assert np.count_nonzero(found.latency) == 2


def test_missing_output_of_wrk_is_an_error() -> None:
    with pytest.raises(ConvoyError, match="unable to connect"):
        parse_output("", "unable to connect to 127.0.0.1:1")


@pytest.mark.parametrize(
    ("url", "load"),
    [("http://127.0.0.1:1", Load(steps=(Step(5, 5),))), ("http://127.0.0.1:1", Load(concurrency=2, think_s=1.0))],
)
def test_plans_that_wrk_does_not_support_are_refused(url: str, load: Load) -> None:
    with pytest.raises(ConfigError, match="closed loop over HTTP only"):
        run_wrk(Plan(Target(url), (Traffic("m"),), load))


@pytest.mark.slow
def test_wrk_sends_the_same_mix_and_every_request_is_accounted_for(echo: Echo) -> None:
    """Needs Debian's wrk."""
    traffic = (Traffic("wrk-a", payload=TINY), Traffic("busy", weight=0.5, payload=TINY))
    before = echo.counts()
    plan = Plan(Target(echo.http), traffic, Load(concurrency=2), duration_s=2.0, warmup_s=1.0)
    report = build_report(run_wrk(plan))
    counts = {name: count - before.get(name, 0) for name, count in echo.counts().items()}
    assert report.accounting.balanced
    assert report.generator.driver == "wrk"
    assert counts["wrk-a"] / counts["busy"] == pytest.approx(2, rel=0.2)
    # wrk drops the requests in flight at its end: at most one per connection and slice.
    assert 0 <= counts["wrk-a"] + counts["busy"] - report.accounting.issued <= 2 * 3
    assert report.accounting.outcomes["HTTP status other than 2xx"] == pytest.approx(counts["busy"] / 3, abs=8)


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["wrk", "hey"])
def test_closed_loop_agrees_with_wrk_and_hey_on_an_engine_bound_server(tool: str) -> None:
    """Needs Debian's wrk and hey. The engine allows 200/s; the generators must agree within 5 %."""
    with simulated_engine() as subject:
        (found,) = measure_agreement(subject, 2.0, [tool])
    assert 0.95 <= found.ratio <= 1.05


def test_the_engine_of_the_noop_server_limits_its_rate() -> None:
    from loadtest.coordinator import run_plan

    with noop_server(0.02) as url:
        plan = Plan(Target(url), (Traffic("m", payload=TINY),), Load(concurrency=4), duration_s=1.0, warmup_s=0.2)
        report = build_report(run_plan(plan))
    assert report.throughput_per_s <= 55
    assert report.accounting.outcomes.keys() == {"HTTP 200"}
