"""Choosing a network: the Pareto front of accuracy and time, and the cheapest network within given limits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from convoy.errors import NotFound
from serve.atlas.data import Atlas, Cell, Network


@dataclass(frozen=True)
class Candidate:
    """A network at a batch size. A client waits for the whole batch."""

    network: Network
    cell: Cell

    @property
    def top1(self) -> float:
        """Accuracy 0..1; 0 when unknown."""
        return self.network.accuracy.top1 if self.network.accuracy else 0.0

    @property
    def cost(self) -> float:
        """Seconds of the machine per image."""
        return self.cell.seconds_per_image


def candidates(atlas: Atlas, dataset: str) -> list[Candidate]:
    """The networks of one data set with a known accuracy. Accuracies of different data sets are not comparable."""
    found = [Candidate(atlas.network(cell.network), cell) for cell in atlas.cells]
    return [
        candidate
        for candidate in found
        if candidate.network.dataset == dataset and candidate.network.accuracy is not None
    ]


def pareto_front(points: Iterable[Candidate]) -> list[Candidate]:
    """The candidates that no other candidate beats in both accuracy and cost, cheapest first."""
    front: list[Candidate] = []
    for candidate in sorted(points, key=lambda point: (point.cost, -point.top1)):
        if not front or candidate.top1 > front[-1].top1:
            front.append(candidate)
    return front


def cheapest(points: Sequence[Candidate], least_top1: float, most_seconds: float) -> Candidate:
    """The candidate with the least machine time per image that reaches `least_top1` within `most_seconds` per batch.

    Raises NotFound that names the nearest one.
    """
    fast = [point for point in points if point.cell.seconds.high <= most_seconds]
    good = [point for point in fast if point.top1 >= least_top1]
    if good:
        return min(good, key=lambda point: point.cost)
    if not fast:
        raise NotFound(f"no network answers within {most_seconds * 1e3:g} ms; allow more time")
    best = max(fast, key=lambda point: point.top1)
    raise NotFound(
        f"no network reaches {least_top1:.1%} within {most_seconds * 1e3:g} ms; the best there is {best.network.label} "
        f"with {best.top1:.1%}"
    )
