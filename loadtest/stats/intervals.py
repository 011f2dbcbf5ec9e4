"""Bootstrap intervals over windows of time; blocks of neighbouring windows are drawn, because those are correlated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadtest.stats.histogram import MIDDLES

Floats = NDArray[np.float64]
FEWEST_WINDOWS = 8
ROUNDS = 1000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A 95 % interval."""

    low: float
    high: float


def block_weights(windows: int, rounds: int, seed: int) -> Floats:
    """Weights [rounds, windows] of a circular block bootstrap (Politis & Romano 1992): how often each window is drawn."""
    generator = np.random.default_rng([seed, 7])
    length = max(1, round(windows ** (1 / 3)))
    starts = generator.integers(0, windows, (rounds, math.ceil(windows / length)))
    drawn = (starts[:, :, None] + np.arange(length)).reshape(rounds, -1)[:, :windows] % windows
    weights = np.zeros((rounds, windows))
    np.add.at(weights, (np.arange(rounds)[:, None], drawn), 1.0)
    return weights


def quantile_intervals(
    counts: NDArray[np.int32], shares: tuple[float, ...], seed: int, missing: NDArray[np.int64] | None = None
) -> dict[float, Interval]:
    """Intervals of quantiles in seconds from latency counts [windows, bins]; empty with too few windows.

    `missing` values per window count as infinite, so an interval may end at infinity.
    """
    windows = len(counts)
    if windows < FEWEST_WINDOWS:
        return {}
    used = np.flatnonzero(counts.sum(axis=0))
    if not len(used):
        return {}
    weights = block_weights(windows, ROUNDS, seed)
    running = np.cumsum(weights @ counts[:, used].astype(np.float64), axis=1)
    totals = running[:, -1] + (0 if missing is None else weights @ missing.astype(np.float64))
    values = np.append(MIDDLES[used], np.inf)
    found = {}
    for share in shares:
        ranks = np.maximum(1.0, np.ceil(share * totals - 1e-9))
        places = (running < ranks[:, None]).sum(axis=1)
        found[share] = _interval(values[places])
    return found


def rate_interval(per_window: NDArray[np.int64], seconds: float, seed: int) -> Interval | None:
    """Interval of a rate per second from counts per window; None with too few windows."""
    if len(per_window) < FEWEST_WINDOWS:
        return None
    return _interval(block_weights(len(per_window), ROUNDS, seed) @ per_window / (len(per_window) * seconds))


def _interval(values: Floats) -> Interval:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, [tail, 1 - tail], method="nearest")
    return Interval(float(low), float(high))


# Two-sided 95 % points of Student's t by degrees of freedom.
_T95 = (12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
        2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045)  # fmt: skip


def ratio_interval(first: Sequence[float], second: Sequence[float]) -> tuple[float, Interval | None]:
    """Ratio second / first of paired positive measurements: geometric mean and t interval on the log ratios.

    The interval is None for fewer than three pairs.
    """
    logs = np.log(np.array(second) / np.array(first))
    centre, pairs = float(logs.mean()), len(logs)
    if pairs < 3:
        return math.exp(centre), None
    point = _T95[pairs - 2] if pairs - 2 < len(_T95) else 1.96 + 2.5 / pairs
    half = point * float(logs.std(ddof=1)) / math.sqrt(pairs)
    return math.exp(centre), Interval(math.exp(centre - half), math.exp(centre + half))


def share_interval(hits: int, total: int) -> Interval | None:
    """Wilson's score interval of a proportion; None without observations."""
    if total == 0:
        return None
    z, share = 1.96, hits / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    return Interval(
        low if hits else 0.0, high if hits < total else 1.0
    )  # exact at 0 and 1, which rounding errors would miss
