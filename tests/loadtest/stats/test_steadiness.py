"""Which runs are judged steady."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from loadtest.stats.steadiness import judge, trend


def test_noise_is_rarely_judged_unsteady() -> None:
    generator = np.random.default_rng(1)
    wrong = 0
    for _ in range(300):
        latency, throughput = generator.lognormal(0, 0.3, 20), generator.normal(100, 20, 20)
        wrong += judge(latency, throughput, 1000, stepped=False).steady is False
    assert wrong / 300 < 0.05


def test_a_growing_queue_is_not_steady() -> None:
    generator = np.random.default_rng(2)
    found = judge(
        np.linspace(0.01, 0.05, 20) * generator.lognormal(0, 0.1, 20), np.full(20, 100.0), 1000, stepped=False
    )
    assert found.steady is False
    assert "median latency rose" in found.reasons[0]


def test_a_stall_until_the_end_is_not_steady() -> None:
    """Equal medians and no answers during the run: there is no trend, but the requests still wait at its end."""
    latency, throughput = np.full(10, 4.0), np.zeros(10)
    assert judge(latency, throughput, 1000, stepped=False).steady is True
    found = judge(latency, throughput, 1000, stepped=False, backlog=900)
    assert found.steady is False
    assert "900 more requests were waiting" in found.reasons[0]
    assert judge(latency, throughput, 1000, stepped=False, backlog=90).steady is True


def test_a_significant_but_tiny_trend_is_steady() -> None:
    assert judge(np.linspace(0.0100, 0.0103, 30), np.full(30, 100.0), 1000, stepped=False).steady is True


def test_short_and_stepped_runs_are_not_judged() -> None:
    assert judge(np.ones(3), np.ones(3), 1000, stepped=False).steady is None
    assert judge(np.ones(20), np.ones(20), 10, stepped=False).steady is None
    assert judge(np.ones(20), np.ones(20), 1000, stepped=True).steady is None


@given(st.lists(st.floats(0.1, 100), min_size=3, max_size=40))
def test_reversed_values_have_the_opposite_trend(values: list[float]) -> None:
    forward, backward = trend(np.array(values)), trend(np.array(values[::-1]))
    assert np.isclose(forward.drift, -backward.drift)
    assert np.isclose(forward.z, -backward.z)
