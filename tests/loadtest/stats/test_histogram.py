"""The histogram: its precision, quantiles and encoding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.stats.histogram import HIGHEST_US, LENGTH, MIDDLES, Histogram, bins_of, lower_us

SECONDS = st.lists(st.floats(1e-6, 3599), min_size=1, max_size=200)


@given(SECONDS)
def test_values_keep_three_significant_digits(values: list[float]) -> None:
    array = np.array(values)
    found = MIDDLES[bins_of(array)]
    assert np.all(np.abs(found - array) <= np.maximum(array * 1e-3, 1e-6))


@given(st.integers(0, LENGTH - 1))
def test_bins_have_no_gaps_and_no_overlap(bin_number: int) -> None:
    lowest = lower_us(np.array([bin_number]))
    if lowest[0] <= HIGHEST_US:
        assert bins_of(lowest / 1e6)[0] == bin_number
        if lowest[0] > 0:
            assert bins_of((lowest - 1) / 1e6)[0] == bin_number - 1


@given(SECONDS, SECONDS)
def test_a_sum_is_the_histogram_of_the_union(first: list[float], second: list[float]) -> None:
    parts = Histogram(), Histogram()
    union = Histogram()
    for part, values in zip(parts, (first, second), strict=True):
        part.record(np.array(values))
        union.record(np.array(values))
    assert np.array_equal((parts[0] + parts[1]).counts, union.counts)


@given(SECONDS, st.sampled_from([0.5, 0.9, 0.99, 0.999]))
def test_quantiles_match_those_of_the_values(values: list[float], share: float) -> None:
    histogram = Histogram()
    histogram.record(np.array(values))
    exact = sorted(values)[max(1, int(np.ceil(share * len(values) - 1e-9))) - 1]
    assert histogram.quantile(share) == pytest.approx(exact, rel=2e-3, abs=1e-6)
    assert histogram.total == len(values)


def test_missing_values_count_as_infinite() -> None:
    histogram = Histogram()
    histogram.record(np.full(98, 0.01))
    assert histogram.quantile(0.99) == pytest.approx(0.01, rel=1e-3)
    assert histogram.quantile(0.99, missing=2) is None
    assert histogram.quantile(0.9, missing=2) == pytest.approx(0.01, rel=1e-3)
    assert Histogram().quantile(0.5) is None


def test_the_encoding_matches_hdrhistogram() -> None:
    """The expected text is from hdrhistogram 0.10.8: HdrHistogram(1, 3600000000, 3) with 1000, 2000 and 5000000."""
    histogram = Histogram()
    histogram.record(np.array([1e-3, 2e-3, 5.0]))
    assert histogram.encode() == "HISTFAAAACp4nJNpmSzMwMDAxQABzFCaEURcm7yEwf4DROA8P9NZfqanmxmZAJQrB+o="
