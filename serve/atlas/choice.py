"""Which network to take: the Pareto front of accuracy and time, and the cheapest one that is good and fast enough."""

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
        return self.network.accuracy.top1 if self.network.accuracy else 0.0

    @property
    def cost(self) -> float:
        """Seconds of the machine per image."""
        return self.cell.seconds_per_image


def candidates(atlas: Atlas, dataset: str) -> list[Candidate]:
    """Networks of a data set whose accuracy is known: accuracies of different data sets are not comparable."""
    found = [Candidate(atlas.network(cell.network), cell) for cell in atlas.cells]
    return [one for one in found if one.network.dataset == dataset and one.network.accuracy is not None]


def pareto_front(points: Iterable[Candidate]) -> list[Candidate]:
    """Those that no other beats in both accuracy and cost, cheapest first."""
    front: list[Candidate] = []
    for one in sorted(points, key=lambda point: (point.cost, -point.top1)):
        if not front or one.top1 > front[-1].top1:
            front.append(one)
    return front


def cheapest(points: Sequence[Candidate], least_top1: float, most_seconds: float) -> Candidate:
    """The least machine time per image among those that are accurate enough and answer a batch in time.

    Raises NotFound that says how close the nearest come.
    """
    fast = [one for one in points if one.cell.seconds.high <= most_seconds]
    good = [one for one in fast if one.top1 >= least_top1]
    if good:
        return min(good, key=lambda one: one.cost)
    if not fast:
        raise NotFound(f"no network answers within {most_seconds * 1e3:g} ms; allow more time")
    best = max(fast, key=lambda one: one.top1)
    raise NotFound(
        f"no network reaches {least_top1:.1%} within {most_seconds * 1e3:g} ms; the best there is {best.network.label} "
        f"with {best.top1:.1%}"
    )
