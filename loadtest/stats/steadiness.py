"""Whether one number describes a run: a trend that is both significant and large makes the run unsteady."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
FEWEST_WINDOWS = 5
FEWEST_REQUESTS = 50
TOLERATED_DRIFT = 0.10
SURE_Z = 2.58  # two-sided 99 %


@dataclass(frozen=True)
class Trend:
    """`drift` is the Theil-Sen change over the run, relative to the median; `z` is the Mann-Kendall statistic."""

    drift: float
    z: float

    @property
    def matters(self) -> bool:
        """Whether the trend is significant and larger than the tolerated drift."""
        return abs(self.z) > SURE_Z and abs(self.drift) > TOLERATED_DRIFT


@dataclass(frozen=True)
class Steadiness:
    """`steady` is None for a run that is too short to judge; `reasons` name what drifted or what was missing."""

    steady: bool | None
    reasons: tuple[str, ...] = ()
    latency: Trend | None = None
    throughput: Trend | None = None


def trend(values: Floats) -> Trend:
    """Trend of values at equal distances in time."""
    count = len(values)
    rows, columns = np.triu_indices(count, 1)
    steps = values[columns] - values[rows]
    score = float(np.sign(steps).sum())
    _, ties = np.unique(values, return_counts=True)
    variance = (count * (count - 1) * (2 * count + 5) - float((ties * (ties - 1) * (2 * ties + 5)).sum())) / 18
    z = 0.0 if variance <= 0 else (score - np.sign(score)) / math.sqrt(variance)
    slope = float(np.median(steps / (columns - rows)))
    middle = float(np.median(values))
    return Trend(slope * (count - 1) / middle if middle else 0.0, float(z))


def judge(medians_s: Floats, throughput: Floats, requests: int, stepped: bool, backlog: int = 0) -> Steadiness:
    """Judges a run by the median latency and throughput of each measured window.

    `backlog` is how many more requests were in flight at the end than at the beginning. A `stepped` profile changes its
    rate on purpose and is not judged.
    """
    if stepped:
        return Steadiness(None, ("the offered rate changes as planned, so no single number describes the run",))
    if len(medians_s) < FEWEST_WINDOWS or requests < FEWEST_REQUESTS:
        needed = f"needs {FEWEST_WINDOWS} windows with answers and {FEWEST_REQUESTS} requests"
        return Steadiness(None, (f"too short to judge: {len(medians_s)} windows, {requests} requests; {needed}",))
    latency, throughput_trend = trend(medians_s), trend(throughput)
    reasons = [
        f"{name} {'rose' if series.drift > 0 else 'fell'} by {abs(series.drift):.0%} over the run"
        for name, series in (("the median latency", latency), ("the throughput", throughput_trend))
        if series.matters
    ]
    if backlog > max(FEWEST_REQUESTS / 2, TOLERATED_DRIFT * requests):  # a stall may leave no trend in the windows
        reasons.append(f"{backlog} more requests were waiting at the end than at the beginning")
    return Steadiness(not reasons, tuple(reasons), latency, throughput_trend)
