"""The choice of a network from an atlas: the Pareto front, and the cheapest one within limits."""

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
    return [Candidate(net, cell(net, 1, seconds)) for net, (seconds, _) in zip(networks, values, strict=True)]


def dominates(first: Candidate, second: Candidate) -> bool:
    return (
        first.cost <= second.cost
        and first.top1 >= second.top1
        and (first.cost, first.top1) != (second.cost, second.top1)
    )


@given(points)
def test_the_pareto_front_holds_the_candidates_that_no_other_dominates(values: list[tuple[float, float]]) -> None:
    all_candidates = candidates_of(values)
    front = pareto_front(all_candidates)
    undominated = {
        (candidate.cost, candidate.top1)
        for candidate in all_candidates
        if not any(dominates(other, candidate) for other in all_candidates)
    }
    assert {(candidate.cost, candidate.top1) for candidate in front} == undominated
    assert len(front) == len(undominated)


@given(points, st.floats(0, 1), st.floats(0.001, 1))
def test_the_cheapest_candidate_within_the_limits_is_chosen(
    values: list[tuple[float, float]], least: float, most: float
) -> None:
    all_candidates = candidates_of(values)
    fitting = [
        candidate for candidate in all_candidates if candidate.top1 >= least and candidate.cell.seconds.high <= most
    ]
    if not fitting:
        with pytest.raises(NotFound):
            cheapest(all_candidates, least, most)
        return
    best = cheapest(all_candidates, least, most)
    assert best in fitting
    assert best.cost == min(candidate.cost for candidate in fitting)


def test_the_error_names_the_nearest_candidate() -> None:
    with pytest.raises(NotFound, match=r"n1 with 60\.0%"):
        cheapest(candidates_of([(0.01, 0.5), (0.02, 0.6), (0.5, 0.9)]), 0.8, 0.1)


def test_a_larger_batch_costs_less_and_takes_longer() -> None:
    net = network("n", 1000, 0.7)
    found = candidates(atlas_of([net], [cell(net, 1, 0.010), cell(net, 8, 0.004)]), "imagenet1k")
    assert cheapest(found, 0.5, 0.1).cell.batch == 8
    assert cheapest(found, 0.5, 0.02).cell.batch == 1


def test_only_networks_of_the_data_set_with_known_accuracy_are_candidates() -> None:
    networks = [network("a", 1, 0.7), network("b", 1, 0.9, "cifar10"), network("c", 1, None)]
    atlas = atlas_of(networks, [cell(net, 1, 0.1) for net in networks])
    assert [candidate.network.name for candidate in candidates(atlas, "imagenet1k")] == ["a"]
