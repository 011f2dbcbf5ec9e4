from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convoy.errors import NotFound
from serve.atlas.choice import Candidate, candidates, cheapest, pareto_front
from tests.serve.atlas.atlases import atlas_of, cell, network

points = st.lists(st.tuples(st.floats(0.001, 1), st.floats(0, 1)), min_size=1, max_size=30)


def candidates_of(values: list[tuple[float, float]]) -> list[Candidate]:
    networks = [network(f"n{place}", 1000, top1) for place, (_, top1) in enumerate(values)]
    return [Candidate(one, cell(one, 1, seconds)) for one, (seconds, _) in zip(networks, values, strict=True)]


def beats(one: Candidate, other: Candidate) -> bool:
    return one.cost <= other.cost and one.top1 >= other.top1 and (one.cost, one.top1) != (other.cost, other.top1)


@given(points)
def test_the_front_is_who_nobody_beats(values: list[tuple[float, float]]) -> None:
    everybody = candidates_of(values)
    front = pareto_front(everybody)
    unbeaten = {(one.cost, one.top1) for one in everybody if not any(beats(other, one) for other in everybody)}
    assert {(one.cost, one.top1) for one in front} == unbeaten
    assert len(front) == len(unbeaten)


@given(points, st.floats(0, 1), st.floats(0.001, 1))
def test_the_cheapest_is_good_and_fast_enough_and_none_such_costs_less(
    values: list[tuple[float, float]], least: float, most: float
) -> None:
    everybody = candidates_of(values)
    fitting = [one for one in everybody if one.top1 >= least and one.cell.seconds.high <= most]
    if not fitting:
        with pytest.raises(NotFound):
            cheapest(everybody, least, most)
        return
    best = cheapest(everybody, least, most)
    assert best in fitting
    assert best.cost == min(one.cost for one in fitting)


def test_what_comes_nearest_is_named() -> None:
    with pytest.raises(NotFound, match=r"n1 with 60\.0%"):
        cheapest(candidates_of([(0.01, 0.5), (0.02, 0.6), (0.5, 0.9)]), 0.8, 0.1)


def test_a_larger_batch_is_cheaper_and_slower_to_answer() -> None:
    one = network("n", 1000, 0.7)
    found = candidates(atlas_of([one], [cell(one, 1, 0.010), cell(one, 8, 0.004)]), "imagenet1k")
    assert cheapest(found, 0.5, 0.1).cell.batch == 8
    assert cheapest(found, 0.5, 0.02).cell.batch == 1


def test_other_data_sets_and_unknown_accuracies_do_not_compete() -> None:
    networks = [network("a", 1, 0.7), network("b", 1, 0.9, "cifar10"), network("c", 1, None)]
    atlas = atlas_of(networks, [cell(one, 1, 0.1) for one in networks])
    assert [one.network.name for one in candidates(atlas, "imagenet1k")] == ["a"]
