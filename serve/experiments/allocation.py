"""Assignment of units to arms: a pure function of (allocation, salt, unit), the same in every process and on every node.

A salted hash puts each unit into one of 1 000 000 buckets; an allocation divides the buckets into spans of one arm each.
When weights change, arms that shrink give the ends of their spans to arms that grow, so no other unit changes its arm.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import blake2b

BUCKETS = 1_000_000
Span = tuple[int, str]  # first bucket after the span, arm


def bucket(salt: str, unit: str) -> int:
    """The bucket of a unit, uniform over [0, BUCKETS). `salt`: at most 64 bytes of UTF-8."""
    hashing = _salted(salt).copy()
    hashing.update(unit.encode())
    return int.from_bytes(hashing.digest(), "big") * BUCKETS >> 64


@lru_cache(256)
def _salted(salt: str) -> blake2b:
    """The keyed hash before the unit is added. Cached: initialising it takes longer than hashing the unit."""
    return blake2b(digest_size=8, key=salt.encode())


@dataclass(frozen=True)
class Allocation:
    """Spans in order; the last one ends at BUCKETS."""

    spans: tuple[Span, ...]

    @cached_property
    def _ends(self) -> list[int]:
        return [end for end, _ in self.spans]

    def arm(self, salt: str, unit: str) -> str:
        """The arm of a unit."""
        return self.spans[bisect_right(self._ends, bucket(salt, unit))][1]

    def arm_at(self, position: int) -> str:
        """The arm of a bucket."""
        return self.spans[bisect_right(self._ends, position)][1]

    @property
    def shares(self) -> dict[str, float]:
        """The share of units of each arm with more than 0; they sum to 1."""
        return {arm: buckets / BUCKETS for arm, buckets in self._buckets.items()}

    @property
    def _buckets(self) -> dict[str, int]:
        buckets: dict[str, int] = {}
        start = 0
        for end, arm in self.spans:
            buckets[arm] = buckets.get(arm, 0) + end - start
            start = end
        return buckets

    def moved_to(self, weights: Mapping[str, float]) -> Allocation:
        """The allocation with these weights in which the fewest units change their arm."""
        wanted, present = quotas(weights), self._buckets
        spare = {arm: max(0, buckets - wanted.get(arm, 0)) for arm, buckets in present.items()}
        missing = {arm: buckets - present.get(arm, 0) for arm, buckets in wanted.items()}
        pieces: list[tuple[int, str]] = []
        for length, arm in reversed(self._lengths()):
            moved = min(spare[arm], length)
            spare[arm] -= moved
            pieces += [*_fill(missing, moved), (length - moved, arm)]
        return _join(pieces[::-1])

    def _lengths(self) -> list[tuple[int, str]]:
        starts = [0, *self._ends]
        return [(end - start, arm) for start, (end, arm) in zip(starts, self.spans, strict=False)]


def allocate(weights: Mapping[str, float]) -> Allocation:
    """The first allocation of an experiment, arms in the order of `weights`."""
    return _join([(buckets, arm) for arm, buckets in quotas(weights).items()])


def quotas(weights: Mapping[str, float]) -> dict[str, int]:
    """Buckets per arm, by largest remainder, summing to BUCKETS. Raises ValueError for weights that do not sum to 1."""
    if any(not 0 <= weight <= 1 for weight in weights.values()) or abs(sum(weights.values()) - 1) > 1e-6:
        raise ValueError(f"weights must lie in [0, 1] and sum to 1; these sum to {sum(weights.values()):g}")
    floors = {arm: int(weight * BUCKETS) for arm, weight in weights.items()}
    by_remainder = sorted(weights, key=lambda arm: floors[arm] - weights[arm] * BUCKETS)
    for arm in by_remainder[: max(0, BUCKETS - sum(floors.values()))]:
        floors[arm] += 1
    excess = sum(floors.values()) - BUCKETS
    floors[max(floors, key=lambda arm: floors[arm])] -= excess
    return floors


def _fill(missing: dict[str, int], buckets: int) -> list[tuple[int, str]]:
    """Divides `buckets` among the arms that miss some, and subtracts their pieces from `missing`."""
    pieces: list[tuple[int, str]] = []
    for arm in missing:
        taken = min(buckets, max(0, missing[arm]))
        missing[arm] -= taken
        buckets -= taken
        pieces.append((taken, arm))
    return pieces


def _join(pieces: Sequence[tuple[int, str]]) -> Allocation:
    spans: list[Span] = []
    end = 0
    for length, arm in pieces:
        if length == 0:
            continue
        end += length
        if spans and spans[-1][1] == arm:
            spans.pop()
        spans.append((end, arm))
    return Allocation(tuple(spans))
