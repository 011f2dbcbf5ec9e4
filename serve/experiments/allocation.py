"""Which arm a unit belongs to: a pure function of (allocation, salt, unit), the same in every process and on every node.

The unit line [0, 1 000 000) is cut into spans, one arm each; a unit's point on it is a salted hash. When weights change,
spans of arms that shrink give up their ends and those of arms that grow take them, so no other unit moves.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import blake2b

POINTS = 1_000_000
Span = tuple[int, str]  # first point behind the span, arm


def point(salt: str, unit: str) -> int:
    """Where a unit lies on the line, uniform over [0, POINTS). `salt`: at most 64 bytes of UTF-8."""
    hashing = _salted(salt).copy()
    hashing.update(unit.encode())
    return int.from_bytes(hashing.digest(), "big") * POINTS >> 64


@lru_cache(256)
def _salted(salt: str) -> blake2b:
    """The hash before the unit: it costs more than the unit itself."""
    return blake2b(digest_size=8, key=salt.encode())


@dataclass(frozen=True)
class Allocation:
    """The cut line: spans in order, the last one ending at POINTS."""

    spans: tuple[Span, ...]

    @cached_property
    def _ends(self) -> list[int]:
        return [end for end, _ in self.spans]

    def arm(self, salt: str, unit: str) -> str:
        return self.arm_at(point(salt, unit))

    def arm_at(self, where: int) -> str:
        return self.spans[bisect_right(self._ends, where)][1]

    @property
    def shares(self) -> dict[str, float]:
        """Share of the units per arm that has one; they sum to 1."""
        return {arm: points / POINTS for arm, points in self._points.items()}

    @property
    def _points(self) -> dict[str, int]:
        points: dict[str, int] = {}
        start = 0
        for end, arm in self.spans:
            points[arm] = points.get(arm, 0) + end - start
            start = end
        return points

    def moved_to(self, weights: Mapping[str, float]) -> Allocation:
        """The allocation with these weights in which the fewest units change their arm."""
        wanted, present = quotas(weights), self._points
        spare = {arm: max(0, points - wanted.get(arm, 0)) for arm, points in present.items()}
        missing = {arm: points - present.get(arm, 0) for arm, points in wanted.items()}
        pieces: list[tuple[int, str]] = []
        for length, arm in reversed(self._lengths()):
            given = min(spare[arm], length)
            spare[arm] -= given
            pieces += [*_fill(missing, given), (length - given, arm)]
        return _join(pieces[::-1])

    def _lengths(self) -> list[tuple[int, str]]:
        starts = [0, *self._ends]
        return [(end - start, arm) for start, (end, arm) in zip(starts, self.spans, strict=False)]


def allocate(weights: Mapping[str, float]) -> Allocation:
    """The first allocation of an experiment, arms in the order of `weights`."""
    return _join([(points, arm) for arm, points in quotas(weights).items()])


def quotas(weights: Mapping[str, float]) -> dict[str, int]:
    """Points per arm, by largest remainder, summing to POINTS. Raises ValueError for weights that do not sum to 1."""
    if any(not 0 <= weight <= 1 for weight in weights.values()) or abs(sum(weights.values()) - 1) > 1e-6:
        raise ValueError(f"weights must lie in [0, 1] and sum to 1; these sum to {sum(weights.values()):g}")
    floors = {arm: int(weight * POINTS) for arm, weight in weights.items()}
    by_remainder = sorted(weights, key=lambda arm: floors[arm] - weights[arm] * POINTS)
    for arm in by_remainder[: max(0, POINTS - sum(floors.values()))]:
        floors[arm] += 1
    excess = sum(floors.values()) - POINTS
    floors[max(floors, key=lambda arm: floors[arm])] -= excess
    return floors


def _fill(missing: dict[str, int], points: int) -> list[tuple[int, str]]:
    """Pieces of `points` in all for the arms that miss some; what they get is taken off `missing`."""
    pieces: list[tuple[int, str]] = []
    for arm in missing:
        taken = min(points, max(0, missing[arm]))
        missing[arm] -= taken
        points -= taken
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
