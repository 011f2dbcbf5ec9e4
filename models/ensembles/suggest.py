"""Which networks to combine: greedy selection on held-out labels, and the sets that nothing cheaper matches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.ensembles.combine import Rule, combine


@dataclass(frozen=True)
class Option:
    """A network with its looks on held-out images: log probabilities [n, classes], and its cost per image, in any unit."""

    name: str
    scores: NDArray[np.float32]
    cost: float


@dataclass(frozen=True)
class Choice:
    """A set of options, its accuracy (0..1) on the held-out images and its cost."""

    members: tuple[str, ...]
    accuracy: float
    cost: float


def select_greedily(
    options: Sequence[Option],
    labels: NDArray[np.int64],
    budget: float = float("inf"),
    most: int = 5,
    rule: Rule = "mean_probability",
) -> list[Choice]:
    """Every set that was looked at, within `budget` and `most` members.

    From each single option on, the option that helps most is added until none fits (Caruana et al. 2004, without repeats
    and from every start: the best single network is not always in the best pair).
    """
    seen: dict[frozenset[int], Choice] = {}

    def look(members: frozenset[int]) -> Choice:
        if members not in seen:
            seen[members] = _judge([options[one] for one in sorted(members)], labels, rule)
        return seen[members]

    for start in range(len(options)):
        members = frozenset({start})
        if options[start].cost > budget:
            continue
        look(members)
        while len(members) < most:
            spent = sum(options[one].cost for one in members)
            larger = [
                members | {one}
                for one in range(len(options))
                if one not in members and spent + options[one].cost <= budget
            ]
            if not larger:
                break
            members = max(larger, key=lambda one: (look(one).accuracy, -look(one).cost))
    return list(seen.values())


def pareto_front(choices: Sequence[Choice]) -> list[Choice]:
    """The choices that none beats in both accuracy and cost, cheapest first."""
    front: list[Choice] = []
    for choice in sorted(choices, key=lambda one: (one.cost, -one.accuracy, one.members)):
        if not front or choice.accuracy > front[-1].accuracy:
            front.append(choice)
    return front


def _judge(members: Sequence[Option], labels: NDArray[np.int64], rule: Rule) -> Choice:
    scores = combine(np.stack([one.scores for one in members]), np.ones(len(members)), rule)
    accuracy = float((scores.argmax(axis=1) == labels).mean())
    return Choice(tuple(one.name for one in members), accuracy, sum(one.cost for one in members))
