"""Counters of a ledger writer. Totals are written, not increments, so that repeated writes are idempotent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from serve.experiments.ledger.latency_buckets import latency_buckets
from serve.experiments.ledger.records import Answered, CounterKey, Measure, Moments, Place, Unanswered

KEY_GROUPS = 128  # intervals get a few percent wider than with one cluster per key, and memory stays bounded


def cluster_of(unit: int) -> int:
    """The cluster of a unit's requests. A key never changes its group, so groups are as independent as keys."""
    return 0 if unit == 0 else 1 + unit % KEY_GROUPS


class Counters:
    """The totals of a writer. Not thread-safe."""

    def __init__(self) -> None:
        self._totals: dict[CounterKey, Moments] = {}
        self._changed: set[CounterKey] = set()

    @property
    def changed(self) -> Mapping[CounterKey, Moments]:
        """Totals that the database may not have yet."""
        return {key: self._totals[key] for key in self._changed}

    def written(self) -> None:
        """Call after `changed` was written to the database."""
        self._changed.clear()

    def answered(self, events: Iterable[Answered]) -> None:
        """Counts the latency, engine time and joules of answers."""
        by_cluster: dict[tuple[Place, int], list[Answered]] = {}
        for event in events:
            by_cluster.setdefault((event.place, cluster_of(event.unit)), []).append(event)
        for (place, cluster), answers in by_cluster.items():
            self._add(place, "failed", 0, cluster, _requests(len(answers)))
            seconds = np.array([event.seconds for event in answers])
            for bucket, count in zip(*np.unique(latency_buckets(seconds), return_counts=True), strict=True):
                self._add(place, "latency", int(bucket), cluster, _requests(int(count)))
            self._cost(place, "engine", cluster, [(len(answer.images), answer.engine_seconds) for answer in answers])
            self._cost(place, "joules", cluster, [(len(answer.images), answer.joules) for answer in answers])

    def unanswered(self, event: Unanswered) -> None:
        """Counts a failed request or a dropped copy."""
        bucket = int(event.measure == "failed")
        self._add(event.place, event.measure, bucket, cluster_of(event.unit), _requests(1))

    def _cost(self, place: Place, measure: Measure, cluster: int, costs: Sequence[tuple[int, float | None]]) -> None:
        """Counts costs (images, cost) of requests; None: unknown."""
        table = np.array([(images, cost) for images, cost in costs if cost is not None], float).reshape(-1, 2)
        if not len(table):
            return
        images, cost = table.T
        sums = [float(values.sum()) for values in (cost, images**2, images * cost, cost**2)]
        self._add(place, measure, 0, cluster, Moments(len(table), int(images.sum()), *sums))

    def _add(self, place: Place, measure: Measure, bucket: int, cluster: int, more: Moments) -> None:
        key = CounterKey(*place, measure, bucket, cluster)
        self._totals[key] = self._totals.get(key, Moments()).plus(more)
        self._changed.add(key)


def _requests(requests: int) -> Moments:
    """Moments of requests with one observation each. Their value is not used."""
    return Moments(requests, requests, 0.0, float(requests))
