"""Evictions from the memory budget: which models, and how many."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serve.executors.memory_budget import Resident, choose_victims

RESIDENTS = st.lists(
    st.builds(Resident, st.uuids().map(str), st.integers(0, 100), st.floats(0, 100, allow_nan=False), st.booleans()),
    max_size=12,
)
SIZES = st.integers(0, 300)


@given(RESIDENTS, SIZES, SIZES)
def test_the_needed_bytes_fit_after_the_evictions_unless_all_models_are_evicted(
    residents: list[Resident], needed: int, budget: int
) -> None:
    victims = choose_victims(residents, needed, budget)
    left = sum(resident.size for resident in residents if resident.name not in victims)
    assert left + needed <= budget or len(victims) == len(residents)


@given(RESIDENTS, SIZES, SIZES)
def test_no_more_models_are_evicted_than_needed(residents: list[Resident], needed: int, budget: int) -> None:
    victims = choose_victims(residents, needed, budget)
    earlier = set(victims[:-1])
    if victims:  # without the last eviction the bytes would not fit
        assert sum(resident.size for resident in residents if resident.name not in earlier) + needed > budget
    assert len(victims) == len(set(victims))


@given(RESIDENTS, SIZES, SIZES)
def test_idle_models_are_evicted_before_busy_ones_the_least_recently_used_first(
    residents: list[Resident], needed: int, budget: int
) -> None:
    by_name = {resident.name: resident for resident in residents}
    victims = [by_name[name] for name in choose_victims(residents, needed, budget)]
    order = [(victim.busy, victim.used) for victim in victims]
    assert order == sorted(order)
    kept = [(resident.busy, resident.used) for resident in residents if resident not in victims]
    assert not victims or all(order[-1] <= key for key in kept)
