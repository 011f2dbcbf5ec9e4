"""What a writer has counted so far: totals that are written whole, so that writing them twice is writing them once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from serve.experiments.ledger.latency_buckets import latency_buckets
from serve.experiments.ledger.records import Answered, CounterKey, Measure, Moments, Place, Unanswered

KEY_GROUPS = 128  # intervals are some percent wider than with a cluster for each key, and a gateway counts for few


def cluster_of(unit: int) -> int:
    """The cluster in which a unit's requests are counted. A key stays in its group, so groups are as independent as keys."""
    return 0 if unit == 0 else 1 + unit % KEY_GROUPS


class Counters:
    """Lives on one thread. `changed` are the totals that a database may not have yet."""

    def __init__(self) -> None:
        self._totals: dict[CounterKey, Moments] = {}
        self._changed: set[CounterKey] = set()

    @property
    def changed(self) -> Mapping[CounterKey, Moments]:
        return {key: self._totals[key] for key in self._changed}

    def written(self) -> None:
        """What was changed is in the database."""
        self._changed.clear()

    def answered(self, events: Iterable[Answered]) -> None:
        """Latency of answers, and their engine time and joules per image; those of a cluster are added up together."""
        alike: dict[tuple[Place, int], list[Answered]] = {}
        for event in events:
            alike.setdefault((event.place, cluster_of(event.unit)), []).append(event)
        for (place, cluster), some in alike.items():
            self._add(place, "failed", 0, cluster, _whole(len(some)))
            seconds = np.array([event.seconds for event in some])
            for bucket, count in zip(*np.unique(latency_buckets(seconds), return_counts=True), strict=True):
                self._add(place, "latency", int(bucket), cluster, _whole(int(count)))
            self._cost(place, "engine", cluster, [(len(one.images), one.engine_seconds) for one in some])
            self._cost(place, "joules", cluster, [(len(one.images), one.joules) for one in some])

    def unanswered(self, event: Unanswered) -> None:
        bucket = int(event.measure == "failed")
        self._add(event.place, event.measure, bucket, cluster_of(event.unit), _whole(1))

    def _cost(self, place: Place, measure: Measure, cluster: int, costs: Sequence[tuple[int, float | None]]) -> None:
        """What requests of so many images cost."""
        table = np.array([(images, cost) for images, cost in costs if cost is not None], float).reshape(-1, 2)
        if not len(table):
            return
        images, cost = table.T
        sums = [float(one.sum()) for one in (cost, images**2, images * cost, cost**2)]
        self._add(place, measure, 0, cluster, Moments(len(table), int(images.sum()), *sums))

    def _add(self, place: Place, measure: Measure, bucket: int, cluster: int, more: Moments) -> None:
        key = CounterKey(*place, measure, bucket, cluster)
        self._totals[key] = self._totals.get(key, Moments()).plus(more)
        self._changed.add(key)


def _whole(requests: int) -> Moments:
    """Requests that are counted themselves."""
    return Moments(requests, requests, 0.0, float(requests))
