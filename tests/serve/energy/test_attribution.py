"""Attribution of measured energy to idle power, models and other processes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.energy.attribution import STEADY_TICKS, IdlePower, share, split

amounts = st.floats(0, 1e6)
works = st.dictionaries(st.sampled_from("abcdef"), st.floats(0, 1e3))


@given(joules=amounts, seconds=st.floats(1e-3, 60), idle=st.floats(0, 1e3), work=works, used=st.none() | amounts)
def test_the_parts_add_up_and_none_is_negative(
    joules: float, seconds: float, idle: float, work: dict[str, float], used: float | None
) -> None:
    parts = split(joules, seconds, idle, work, used)
    assert parts.idle + sum(parts.models.values()) + parts.other == pytest.approx(joules, rel=1e-9, abs=1e-9)
    assert min(parts.idle, parts.other, *parts.models.values()) >= 0
    assert set(parts.models) == set(work)


@given(joules=st.floats(1, 1e6), work=st.dictionaries(st.sampled_from("abcdef"), st.floats(1e-3, 1e3), min_size=2))
def test_models_get_joules_in_proportion_to_their_work(joules: float, work: dict[str, float]) -> None:
    attributed = split(joules, 1.0, 0.0, work).models
    first = next(iter(work))
    for key in work:
        assert attributed[key] * work[first] == pytest.approx(attributed[first] * work[key], rel=1e-6)


def test_other_processes_get_their_share_of_the_cores() -> None:
    parts = split(50.0, 1.0, 30.0, {"m": 0.5}, used=2.0)
    assert parts.models["m"] == pytest.approx(5.0)
    assert parts.other == pytest.approx(15.0)


def test_overlapping_engines_get_no_more_than_the_cores_used() -> None:
    # Two engines with two threads each run all the time, but the machine used only two cores.
    parts = split(70.0, 1.0, 30.0, {"a": 2.0, "b": 2.0}, used=2.0)
    assert parts.models == {"a": pytest.approx(20.0), "b": pytest.approx(20.0)}
    assert parts.other == 0


def test_without_work_all_active_energy_is_other() -> None:
    assert split(50.0, 1.0, 30.0, {}, used=0.0).other == 20.0


@given(joules=amounts, weights=st.dictionaries(st.sampled_from("abc"), amounts))
def test_the_joules_of_a_model_are_divided_completely_among_its_users(joules: float, weights: dict[str, float]) -> None:
    assert sum(share(joules, weights, "unattributed").values()) == pytest.approx(joules)


@given(st.lists(st.floats(40, 200), min_size=STEADY_TICKS), st.floats(0, 30))
def test_a_single_low_tick_is_not_idle_power(watts: list[float], glitch: float) -> None:
    idle = IdlePower()
    for power in [*watts, glitch]:
        learnt = idle.learn(power)
    assert learnt >= min(watts)


def test_idle_power_is_the_lowest_power_over_several_ticks() -> None:
    idle = IdlePower()
    for watts in [90.0] * 10 + [30.0] * STEADY_TICKS + [90.0] * 10:
        learnt = idle.learn(watts)
    assert learnt == 30.0


def test_an_earlier_estimate_holds_from_the_first_tick() -> None:
    assert IdlePower(30.0).learn(90.0) == 30.0
