"""Splits a chip's joules into idle, models and other: pure functions of one tick.

Idle energy is idle power x time, at most the counter's growth; the rest is active energy. On CPU cores, active energy is divided
by the core-seconds of all processes, so that decoding, Ray and other programs bear their share. On an accelerator, which only
engines use, it is divided by engine time. Energy that cannot be attributed to an engine is reported as `other`.
Invariant: idle + models + other = growth of the counter.
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
    """Splits `joules` of a tick of `seconds`.

    `work` is unit-seconds by model (cores x time on a CPU), `used` the unit-seconds of all processes; None: only engines use
    the chip.
    """
    idle = min(joules, idle_watts * seconds)
    active = joules - idle
    total = sum(work.values())
    all_used = total if used is None else max(used, total)
    if all_used <= 0:
        return Split(idle, dict.fromkeys(work, 0.0), active)
    models = {key: active * (amount / all_used) for key, amount in work.items()}
    return Split(idle, models, max(0.0, active - sum(models.values())))


def share(joules: float, weights: Mapping[K, float], otherwise: K) -> dict[K, float]:
    """Splits a model's joules in proportion to the `weights` of its users; all go to `otherwise` when it had no user."""
    total = sum(weights.values())
    if total <= 0:
        return {otherwise: joules}
    return {key: joules * (weight / total) for key, weight in weights.items() if weight > 0}


@dataclass
class IdlePower:
    """Estimates a chip's idle power in watts: the lowest median over STEADY_TICKS ticks in a row. The median resists noise."""

    watts: float | None = None
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=STEADY_TICKS))

    def learn(self, watts: float) -> float:
        """The estimate after one more tick of `watts`; a provisional one during the first STEADY_TICKS ticks."""
        self._recent.append(watts)
        steady = statistics.median(self._recent)
        if len(self._recent) < STEADY_TICKS:
            return steady if self.watts is None else self.watts
        self.watts = steady if self.watts is None else min(self.watts, steady)
        return self.watts
