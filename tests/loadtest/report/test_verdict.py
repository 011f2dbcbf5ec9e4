"""Which runs are valid, and the notes on them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from loadtest.report.values import Accounting, Generator, Latency
from loadtest.report.verdict import judge
from tests.loadtest.simulated import plan_at, report_of

HEALTHY = Generator(
    driver="loadtest",
    workers=1,
    worker_cores=(0.2,),
    starved_ms=0.1,
    all_cores=0.2,
    host_cores=2,
    host_busy_cores=1.0,
    host_stolen_cores=0.0,
    lag=Latency(1000, 0.1, 1.0, {"p50": 0.05, "p99": 0.3}),
    waited_for_connection=0,
    max_in_flight=9,
    requests_per_cpu_s=5000.0,
)
SLOW = Latency(1000, 5.0, 9.0, {"p50": 5.0, "p99": 20.0})
ACCOUNT = Accounting(100, 10, 90, {"HTTP 200": 100}, {})
PLAN = plan_at(10)


def test_a_generator_with_spare_time_is_valid() -> None:
    found = judge(PLAN, HEALTHY, SLOW, ACCOUNT)
    assert found.valid
    assert found.notes == ()


def test_busy_late_or_starved_workers_and_a_small_pool_are_invalid() -> None:
    for change, text in (
        ({"worker_cores": (0.3, 0.9)}, "--workers"),
        ({"lag": Latency(1000, 1.0, 9.0, {"p50": 0.1, "p99": 3.0})}, "own lag is 3.00 ms"),
        ({"lag": Latency(1000, 1.0, 9.0, {"p50": 1.1, "p99": 1.2})}, "p50 of the generator's own lag"),
        ({"waited_for_connection": 4}, "--max-connections"),
        ({"starved_ms": 1.2}, "waited 1.20 ms for a core on average, at a p50 latency of 5.00 ms"),
        ({"all_sent": False}, "could not be sent in time"),
    ):
        found = judge(PLAN, replace(HEALTHY, **change), SLOW, ACCOUNT)
        assert not found.valid
        assert text in found.reasons[0]


def test_lag_that_is_small_beside_the_latency_is_valid() -> None:
    late = replace(HEALTHY, lag=Latency(1000, 1.0, 9.0, {"p50": 0.1, "p99": 3.0}))
    slower = Latency(1000, 50.0, 90.0, {"p50": 50.0, "p99": 80.0})
    assert judge(PLAN, late, slower, ACCOUNT).valid
    assert judge(PLAN, replace(HEALTHY, starved_ms=1.2), slower, ACCOUNT).valid


def test_missing_requests_are_never_valid() -> None:
    assert not judge(PLAN, HEALTHY, SLOW, replace(ACCOUNT, issued=101)).valid
    assert not judge(PLAN, HEALTHY, SLOW, replace(ACCOUNT, warmup=11)).valid


def test_a_generator_on_the_server_s_cores_notes_that_it_slows_the_server() -> None:
    fast = replace(ACCOUNT, issued=4000, warmup=0, measured=4000, outcomes={"HTTP 200": 4000})
    assert "--driver wrk" in judge(PLAN, HEALTHY, SLOW, fast).notes[0]
    assert "--driver wrk" in judge(PLAN, replace(HEALTHY, all_cores=0.5), SLOW, ACCOUNT).notes[0]
    away = replace(PLAN, target=replace(PLAN.target, url="http://10.1.2.3:80"))
    assert judge(away, HEALTHY, SLOW, fast).notes == ()


def test_a_run_whose_answers_arrive_after_its_end_is_not_steady() -> None:
    found = report_of(plan_at(250), np.full(1000, 8.0))
    assert found.steadiness.steady is False
    assert "waiting at the end" in found.steadiness.reasons[-1]


def test_a_simulated_run_is_usable() -> None:
    assert report_of(plan_at(250), np.random.default_rng(1).lognormal(-4, 0.2, 1000)).usable
