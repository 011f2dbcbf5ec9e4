"""Compares two servers, configurations or commits in alternating slices, so that drift of the machine affects both alike."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from convoy.errors import ConfigError
from loadtest.plan import Plan
from loadtest.report.values import Report
from loadtest.search.limits import Measure
from loadtest.stats.intervals import Interval, ratio_interval

METRICS: dict[str, Callable[[Report], float | None]] = {
    "throughput": lambda report: report.throughput_per_s,
    "goodput": lambda report: report.goodput_per_s,
    "p50": lambda report: report.quantile("p50"),
    "p90": lambda report: report.quantile("p90"),
    "p99": lambda report: report.quantile("p99"),
    "joules/image": lambda report: report.energy_per_image_j,
}
MORE_IS_BETTER = {"throughput", "goodput"}


@dataclass(frozen=True)
class Side:
    """One of the two sides: its name, its plan, and a context manager that runs its server for a slice."""

    name: str
    plan: Plan
    up: Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True)
class Ratio:
    """Ratio B/A of a metric over all rounds, with a 95 % interval (None below three rounds)."""

    metric: str
    ratio: float
    interval: Interval | None

    @property
    def finding(self) -> str:
        """The result in one sentence."""
        if self.interval is None:
            return f"{self.metric}: B/A {self.ratio:.3f}, too few rounds for an interval"
        span = f"B/A {self.ratio:.3f} ({self.interval.low:.3f} … {self.interval.high:.3f})"
        if self.interval.low <= 1 <= self.interval.high:
            return f"{self.metric}: {span}, no significant difference"
        better = (self.ratio > 1) == (self.metric in MORE_IS_BETTER)
        return f"{self.metric}: {span}, B is {'better' if better else 'worse'}"


@dataclass(frozen=True)
class Comparison:
    """Slices in the order A B A B …, and the ratios of the metrics that every slice of both sides has."""

    names: tuple[str, str]
    rounds: int
    first: tuple[Report, ...]
    second: tuple[Report, ...]
    ratios: tuple[Ratio, ...]
    accuracy: tuple[float | None, float | None]

    @property
    def valid(self) -> bool:
        """Whether every slice is valid."""
        return all(report.verdict.valid for report in (*self.first, *self.second))


def compare(first: Side, second: Side, rounds: int, measure: Measure) -> Comparison:
    """Measures A B A B …, `rounds` times each. Both sides of a round get the same arrivals; every round has different ones.

    If the user interrupts a slice, the comparison ends with the rounds before it. Raises ConfigError without a round.
    """
    if rounds < 1:
        raise ConfigError("a comparison needs at least one round")
    reports: tuple[list[Report], list[Report]] = ([], [])
    for number in range(rounds):
        pair = []
        for letter, side in zip("AB", (first, second), strict=True):
            plan = replace(side.plan, seed=side.plan.seed + number, name=f"{letter} {number + 1}/{rounds}")
            with side.up():
                pair.append(measure(plan))
            if pair[-1].stopped:
                return _read_stopped((first.name, second.name), *reports)
        for side_reports, report in zip(reports, pair, strict=True):
            side_reports.append(report)
    return read_comparison((first.name, second.name), tuple(reports[0]), tuple(reports[1]))


def _read_stopped(names: tuple[str, str], first: list[Report], second: list[Report]) -> Comparison:
    if not first:
        raise ConfigError("stopped before the first round was complete")
    return read_comparison(names, tuple(first), tuple(second))


def read_comparison(names: tuple[str, str], first: tuple[Report, ...], second: tuple[Report, ...]) -> Comparison:
    """The ratios of paired reports."""
    ratios = []
    for metric, read in METRICS.items():
        values = [read(report) for report in first], [read(report) for report in second]
        known = [[value for value in side if value] for side in values]
        if len(known[0]) == len(first) == len(known[1]):
            ratios.append(Ratio(metric, *ratio_interval(*known)))
    return Comparison(names, len(first), first, second, tuple(ratios), (_accuracy(first), _accuracy(second)))


def _accuracy(reports: tuple[Report, ...]) -> float | None:
    labelled = sum(report.total.labelled for report in reports)
    hits = sum((report.total.accuracy or 0.0) * report.total.labelled for report in reports)
    return hits / labelled if labelled else None
