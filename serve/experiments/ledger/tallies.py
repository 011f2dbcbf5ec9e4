"""What a writer has counted so far: totals that are written whole, so that writing them twice is writing them once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from serve.experiments.ledger.latency import latency_buckets
from serve.experiments.ledger.records import Answered, Measure, Place, TallyKey, Unanswered

Totals = tuple[int, float, float]  # count, sum, sum of squares
Array = NDArray[np.float64]


class Tallies:
    """Lives on one thread. `changed` are the totals that a database may not have yet."""

    def __init__(self) -> None:
        self._totals: dict[TallyKey, Totals] = {}
        self._changed: set[TallyKey] = set()

    @property
    def changed(self) -> Mapping[TallyKey, Totals]:
        return {key: self._totals[key] for key in self._changed}

    def written(self) -> None:
        """What was changed is in the database."""
        self._changed.clear()

    def answered(self, events: Iterable[Answered]) -> None:
        """Latency, engine time and joules per image of answers; an arm's are added up together."""
        by_place: dict[Place, list[Answered]] = {}
        for event in events:
            by_place.setdefault(event.place, []).append(event)
        for place, some in by_place.items():
            self._add(place, "failed", 0, len(some))
            seconds = np.array([event.seconds for event in some])
            for bucket, count in zip(*np.unique(latency_buckets(seconds), return_counts=True), strict=True):
                self._add(place, "latency", int(bucket), int(count))
            self._cost(place, "engine", [(len(one.images), one.engine_seconds) for one in some])
            self._cost(place, "joules", [(len(one.images), one.joules) for one in some])

    def unanswered(self, event: Unanswered) -> None:
        self._add(event.place, event.measure, int(event.measure == "failed"), 1)

    def _cost(self, place: Place, measure: Measure, costs: Sequence[tuple[int, float | None]]) -> None:
        """What requests of so many images cost, counted per image."""
        table = np.array([(images, cost) for images, cost in costs if cost is not None], float).reshape(-1, 2)
        if not len(table):
            return
        images, cost = table.T
        self._add(place, measure, 0, int(images.sum()), float(cost.sum()), float((cost**2 / images).sum()))

    def _add(
        self, place: Place, measure: Measure, bucket: int, count: int, total: float = 0.0, squares: float = 0.0
    ) -> None:
        key = TallyKey(*place, measure, bucket)
        before = self._totals.get(key, (0, 0.0, 0.0))
        self._totals[key] = (before[0] + count, before[1] + total, before[2] + squares)
        self._changed.add(key)
