"""Allocation of units to arms: exact shares, changes that move as few units as possible, stable buckets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from serve.experiments.allocation import BUCKETS, Allocation, allocate, bucket, quotas

ARMS = "abcd"


@st.composite
def weights(draw: st.DrawFn) -> dict[str, float]:
    counts = draw(st.lists(st.integers(0, 1000), min_size=2, max_size=len(ARMS)).filter(any))
    return {arm: count / sum(counts) for arm, count in zip(ARMS, counts, strict=False)}


def moved(before: Allocation, after: Allocation) -> dict[tuple[str, str], int]:
    """Number of buckets for each pair (arm before, arm after) of different arms."""
    ends = sorted({end for allocation in (before, after) for end, _ in allocation.spans})
    counts: dict[tuple[str, str], int] = {}
    for start, end in zip([0, *ends], ends, strict=False):
        arms = before.arm_at(start), after.arm_at(start)
        if arms[0] != arms[1]:
            counts[arms] = counts.get(arms, 0) + end - start
    return counts


@given(weights())
def test_shares_differ_from_the_weights_by_less_than_two_buckets(wanted: dict[str, float]) -> None:
    shares = allocate(wanted).shares
    assert sum(shares.values()) == pytest.approx(1)
    for arm, weight in wanted.items():
        assert shares.get(arm, 0) == pytest.approx(weight, abs=2 / BUCKETS)


@given(weights(), st.lists(weights(), min_size=1, max_size=5))
def test_a_change_moves_no_more_units_than_necessary(first: dict[str, float], changes: list[dict[str, float]]) -> None:
    allocation = allocate(first)
    for wanted in changes:
        changed = allocation.moved_to(wanted)
        before, after = quotas(allocation.shares), quotas(wanted)
        must_move = sum(max(0, after[arm] - before.get(arm, 0)) for arm in after)
        assert sum(moved(allocation, changed).values()) == must_move
        assert quotas(changed.shares) == {arm: buckets for arm, buckets in after.items() if buckets}
        allocation = changed


def test_a_ramp_never_moves_a_unit_from_the_candidate_to_the_control() -> None:
    allocation = allocate({"old": 0.99, "new": 0.01})
    for share in (0.05, 0.25, 0.5, 1.0):
        before = allocation
        allocation = before.moved_to({"old": 1 - share, "new": share})
        assert set(moved(before, allocation)) == {("old", "new")}


def test_the_split_of_units_passes_a_chi_squared_test() -> None:
    wanted = {"a": 0.5, "b": 0.3, "c": 0.2}
    allocation = allocate(wanted)
    arms = [allocation.arm("salt", f"user-{number}") for number in range(30_000)]
    counts = [arms.count(arm) for arm in wanted]
    assert chisquare(counts, [30_000 * weight for weight in wanted.values()]).pvalue > 1e-4


def test_buckets_with_different_salts_are_independent() -> None:
    units = [f"user-{number}" for number in range(20_000)]
    first, second = (np.array([bucket(salt, unit) for unit in units]) for salt in ("one", "two"))
    assert abs(np.corrcoef(first, second)[0, 1]) < 4 / np.sqrt(len(units))


def test_the_bucket_of_a_unit_never_changes_between_releases() -> None:
    assert [bucket("checkout", unit) for unit in ("", "ada", "grace")] == BUCKETS_OF_RELEASE_ONE


BUCKETS_OF_RELEASE_ONE = [721360, 252184, 896492]


@pytest.mark.parametrize("wrong", [{"a": 0.5, "b": 0.4}, {"a": 1.5, "b": -0.5}, {"a": 0.7, "b": 0.7}])
def test_weights_that_are_negative_or_do_not_sum_to_1_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="sum to"):
        quotas(wrong)


def test_quotas_sum_to_the_number_of_buckets() -> None:
    assert sum(quotas({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}).values()) == BUCKETS
