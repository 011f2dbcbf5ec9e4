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
def test_the_needed_bytes_fit_after_the_evictions_if_possible(
    residents: list[Resident], needed: int, budget: int
) -> None:
    victims = choose_victims(residents, needed, budget)
    left = sum(one.size for one in residents if one.name not in victims)
    assert left + needed <= budget or len(victims) == len(residents)


@given(RESIDENTS, SIZES, SIZES)
def test_no_model_is_evicted_without_need(residents: list[Resident], needed: int, budget: int) -> None:
    victims = choose_victims(residents, needed, budget)
    spared = set(victims[:-1])
    if victims:
        assert sum(one.size for one in residents if one.name not in spared) + needed > budget
    assert len(victims) == len(set(victims))


@given(RESIDENTS, SIZES, SIZES)
def test_idle_models_are_evicted_first_and_of_them_the_least_recently_used(
    residents: list[Resident], needed: int, budget: int
) -> None:
    by_name = {one.name: one for one in residents}
    victims = [by_name[name] for name in choose_victims(residents, needed, budget)]
    order = [(one.busy, one.used) for one in victims]
    assert order == sorted(order)
    stay = [(one.busy, one.used) for one in residents if one not in victims]
    assert not victims or all(order[-1] <= one for one in stay)
