"""Suggests networks to combine: greedy selection on a validation set, and the Pareto front of accuracy and cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.ensembles.combine import Rule, combine


@dataclass(frozen=True)
class Option:
    """A network with its views: log probabilities [n, classes] on the validation set, and its cost per image, in any unit."""

    name: str
    scores: NDArray[np.float32]
    cost: float


@dataclass(frozen=True)
class Choice:
    """A set of options, its accuracy (0..1) on the validation set and its cost per image."""

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
    """All evaluated sets within `budget` and with at most `most` members.

    Starting from each single option, the option that improves accuracy most is added until none fits (Caruana et al. 2004,
    but without repetition, and from every start: the best single network is not always in the best pair).
    """
    evaluated: dict[frozenset[int], Choice] = {}

    def evaluate(members: frozenset[int]) -> Choice:
        if members not in evaluated:
            evaluated[members] = _evaluate([options[index] for index in sorted(members)], labels, rule)
        return evaluated[members]

    for start in range(len(options)):
        members = frozenset({start})
        if options[start].cost > budget:
            continue
        evaluate(members)
        while len(members) < most:
            cost = sum(options[index].cost for index in members)
            larger = [
                members | {index}
                for index in range(len(options))
                if index not in members and cost + options[index].cost <= budget
            ]
            if not larger:
                break
            members = max(larger, key=lambda larger_set: (evaluate(larger_set).accuracy, -evaluate(larger_set).cost))
    return list(evaluated.values())


def pareto_front(choices: Sequence[Choice]) -> list[Choice]:
    """The choices that no other beats in both accuracy and cost, cheapest first."""
    front: list[Choice] = []
    for choice in sorted(choices, key=lambda choice: (choice.cost, -choice.accuracy, choice.members)):
        if not front or choice.accuracy > front[-1].accuracy:
            front.append(choice)
    return front


def _evaluate(members: Sequence[Option], labels: NDArray[np.int64], rule: Rule) -> Choice:
    scores = combine(np.stack([member.scores for member in members]), np.ones(len(members)), rule)
    accuracy = float((scores.argmax(axis=1) == labels).mean())
    return Choice(tuple(member.name for member in members), accuracy, sum(member.cost for member in members))
