"""Arrival times: a unit-rate renewal process, warped by the cumulative rate of the profile.

A seed gives the same arrivals for any number of workers and any block size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convoy.errors import shown
from loadtest.plan import Load, Plan, Step

Times = NDArray[np.float64]
BLOCK = 256  # blocks are drawn between sends, so they must be short: about 0.1 ms each


def arrival_blocks(load: Load, seed: int, end: float, block: int = BLOCK) -> Iterator[Times]:
    """Ascending arrival times in [0, end) seconds, in blocks. `load` must be an open loop."""
    if load.recorded:
        times = np.array(load.recorded)
        yield times[times <= end]  # inclusive: a recording ends at the time of its last arrival
        return
    knots, cumulative = _cumulative(load.steps, end)
    for units in _unit_process(load, seed, block):
        inside = units[units < cumulative[-1]]
        yield np.interp(inside, cumulative, knots)
        if len(inside) < len(units):
            return


def _unit_process(load: Load, seed: int, block: int) -> Iterator[Times]:
    """Event times of a renewal process whose gaps have mean 1."""
    generator = np.random.Generator(np.random.PCG64([seed, 1]))
    last = 0.0
    for first in range(0, 1 << 62, block):
        if load.process == "constant":
            yield np.arange(first, first + block, dtype=np.float64)
            continue
        if load.process == "poisson":
            gaps = generator.standard_exponential(block)
        else:
            variance = load.burstiness**2
            gaps = generator.standard_gamma(1 / variance, block) * variance
        times = last + np.cumsum(gaps)
        last = float(times[-1])
        yield times


def _cumulative(steps: tuple[Step, ...], end: float) -> tuple[Times, Times]:
    """Knots (time, expected number of arrivals so far) of a piecewise linear curve; flat where a step has rate 0."""
    knots, counts = [0.0], [0.0]
    for number, step in enumerate(steps):
        is_last = number == len(steps) - 1
        until = max(end, knots[-1]) if is_last else min(end, knots[-1] + step.seconds)
        counts.append(counts[-1] + step.rate * (until - knots[-1]))
        knots.append(until)
    times, totals = np.array(knots), np.array(counts)
    return times, totals


def read_recorded(text: str) -> tuple[float, ...]:
    """Arrival times from a file: seconds, one number per line, counted from the earliest; `#` starts a comment.

    Raises ValueError for anything else.
    """
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    values = sorted(_time(line) for line in lines if line)
    if not values:
        raise ValueError("no arrival times")
    if not all(map(math.isfinite, values)):
        raise ValueError("not a finite number")
    return tuple(value - values[0] for value in values)


def _time(line: str) -> float:
    try:
        return float(line)
    except ValueError as error:
        raise ValueError(f"{shown(line)} is not a number") from error


@dataclass(frozen=True)
class Due:
    """A request to send: its number in the run, its time in seconds, its traffic and the payload of that traffic."""

    index: int
    time: float
    traffic: int
    item: int


class Picks:
    """Traffic and payload of request number i: a pure function of the seed, so that workers need not communicate."""

    def __init__(self, plan: Plan, counts: tuple[int, ...]) -> None:
        weights = np.array([traffic.weight for traffic in plan.traffic])
        self._shares = np.cumsum(weights / weights.sum())
        self._generator = np.random.Generator(np.random.PCG64([plan.seed, 2]))
        order = np.random.Generator(np.random.PCG64([plan.seed, 3]))
        self._orders = [order.permutation(count) for count in counts]
        self._used = [0] * len(counts)

    def take(self, size: int) -> list[tuple[int, int]]:
        """(traffic, item) of the next `size` requests; every payload of a traffic is used once before any is used again."""
        chosen = np.minimum(np.searchsorted(self._shares, self._generator.random(size), "right"), len(self._used) - 1)
        picks = []
        for traffic in chosen.tolist():
            order = self._orders[traffic]
            picks.append((traffic, int(order[self._used[traffic] % len(order)])))
            self._used[traffic] += 1
        return picks


def open_schedule(plan: Plan, counts: tuple[int, ...], worker: int) -> Iterator[Due]:
    """The requests of one worker: every `workers`-th of the run."""
    picks, index = Picks(plan, counts), 0
    for times in arrival_blocks(plan.load, plan.seed, plan.end_s):
        for time, (traffic, item) in zip(times.tolist(), picks.take(len(times)), strict=True):
            if index % plan.workers == worker:
                yield Due(index, time, traffic, item)
            index += 1


def closed_schedule(plan: Plan, counts: tuple[int, ...], worker: int) -> Iterator[Due]:
    """An endless stream of the requests to send next in closed loop; their times are 0."""
    picks, index = Picks(plan, counts), 0
    while True:
        for traffic, item in picks.take(256):
            if index % plan.workers == worker:
                yield Due(index, 0.0, traffic, item)
            index += 1
