"""Confidence sequences of the normal mixture: radius, intervals, p-values and sample size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.experiments.stats.mixture import Estimate, growth_to_reach, interval, p_value, radius

MANY = np.array(1e9)
variances = st.floats(1e-8, 1.0)


def estimate(value: float, variance: float, freedom: float = 1e9) -> Estimate:
    return Estimate(np.array(value), np.array(variance), np.array(freedom))


@given(variances, st.floats(0.001, 0.2), st.floats(0.001, 0.2))
def test_the_likelihood_ratio_at_the_radius_is_the_inverse_of_alpha(
    variance: float, effect: float, alpha: float
) -> None:
    width = float(radius(np.array(variance), MANY, effect, alpha))
    mixing = effect**2
    ratio = 0.5 * np.log(variance / (variance + mixing)) + mixing * width**2 / (2 * variance * (variance + mixing))
    assert ratio == pytest.approx(np.log(1 / alpha), rel=1e-3) or np.isinf(width)


@given(st.floats(-0.2, 0.2), st.floats(1e-7, 1e-3), st.floats(5, 1e6), st.floats(0.01, 0.2))
def test_interval_and_p_value_agree(value: float, variance: float, freedom: float, alpha: float) -> None:
    observed = estimate(value, variance, freedom)
    p = float(p_value(observed, 0.03))
    if abs(np.log(p + 1e-300) - np.log(alpha)) > 0.01:
        assert bool(interval(observed, 0.03, alpha).excludes(0)) == (p < alpha)


@given(variances, st.floats(3, 1e6))
def test_few_clusters_never_narrow_an_interval(variance: float, freedom: float) -> None:
    wide, narrow = (float(radius(np.array(variance), np.array(df), 0.03, 0.05)) for df in (freedom, 1e9))
    assert wide >= narrow * (1 - 1e-6)


def test_the_interval_without_samples_is_unbounded() -> None:
    unknown = interval(estimate(float("nan"), float("nan"), 0.0), 0.03, 0.05)
    assert (float(unknown.low), float(unknown.high)) == (-np.inf, np.inf)
    assert p_value(estimate(0.0, float("nan"), 0.0), 0.03) == 1.0


def test_growth_of_the_samples_reaches_the_target_radius() -> None:
    current = estimate(0.01, 4e-4)
    growth = growth_to_reach(current, 0.03, 0.05, target=0.02)
    assert growth > 1
    assert radius(np.array(4e-4 / growth), MANY, 0.03, 0.05) == pytest.approx(0.02, rel=1e-3)
    assert growth_to_reach(current, 0.03, 0.05, target=0.9) == 1.0
    assert growth_to_reach(estimate(0.0, float("nan"), 0.0), 0.03, 0.05, 0.02) == float("inf")
