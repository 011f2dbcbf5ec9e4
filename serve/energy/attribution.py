"""Splits a chip's joules into idle, models and other: pure functions of one tick.

idle = watts at rest x time, at most what the counter says. The rest is active. On a machine's cores it is priced per
core-second that anything used, so that decoding, Ray and strangers pay their part; on an accelerator, which only engines
use, per second of engine time. A model pays for its work, and what nobody's work explains is other.
Invariant: idle + models + other = the counter.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

STEADY_TICKS = 5


@dataclass(frozen=True)
class Split(Generic[K]):
    """Joules of one chip in one tick."""

    idle: float
    models: Mapping[K, float]
    other: float


def split(
    joules: float, seconds: float, idle_watts: float, work: Mapping[K, float], used: float | None = None
) -> Split[K]:
    """`work` is unit-seconds by model (cores x time on a CPU), `used` those of everybody; None: engines alone."""
    idle = min(joules, idle_watts * seconds)
    active = joules - idle
    total = sum(work.values())
    everybody = total if used is None else max(used, total)
    if everybody <= 0:
        return Split(idle, dict.fromkeys(work, 0.0), active)
    models = {key: active * (amount / everybody) for key, amount in work.items()}
    return Split(idle, models, max(0.0, active - sum(models.values())))


def share(joules: float, weights: Mapping[K, float], otherwise: K) -> dict[K, float]:
    """Joules of a model in proportion to `weights` of its users; all to `otherwise` when nobody used it."""
    total = sum(weights.values())
    if total <= 0:
        return {otherwise: joules}
    return {key: joules * (weight / total) for key, weight in weights.items() if weight > 0}


@dataclass
class IdlePower:
    """Learns a chip's watts at rest: the lowest that it drew for several ticks in a row (their median, against noise)."""

    watts: float | None = None
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=STEADY_TICKS))

    def learn(self, watts: float) -> float:
        """The estimate after one more tick; a provisional one until there were enough ticks."""
        self._recent.append(watts)
        steady = statistics.median(self._recent)
        if len(self._recent) < STEADY_TICKS:
            return steady if self.watts is None else self.watts
        self.watts = steady if self.watts is None else min(self.watts, steady)
        return self.watts
