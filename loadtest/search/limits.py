"""Finds the highest rate that keeps a latency target: doubles the rate, bisects, then confirms with a longer run."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from convoy.errors import ConfigError
from loadtest.plan import Plan, Step
from loadtest.report.values import QUANTILES, Report
from loadtest.report.verdict import BUSY_CORE

Measure = Callable[[Plan], Report]
Outcome = Literal["kept", "broken", "generator"]
LOWEST_RATE = 0.1
CONFIRMATIONS = 4


@dataclass(frozen=True)
class Goal:
    """A latency target in milliseconds, and the settings of the search. It ends at the relative width `tolerance`."""

    quantile: str = "p99"
    target_ms: float = 100.0
    start_rate: float = 10.0
    max_rate: float = 100_000.0
    probe_s: float = 5.0
    confirm_s: float = 20.0
    tolerance: float = 0.05

    def __post_init__(self) -> None:
        if self.quantile not in QUANTILES:
            raise ConfigError(f"quantile {self.quantile!r} is not one of {', '.join(QUANTILES)}")
        if min(self.target_ms, self.start_rate, self.probe_s, self.confirm_s, self.tolerance) <= 0:
            raise ConfigError("target, start rate, durations and tolerance must be positive")


@dataclass(frozen=True)
class Probe:
    """One run of the search. `value_ms` is the quantile with failures as infinitely late; None means infinite."""

    rate: float
    outcome: Outcome
    value_ms: float | None
    reason: str
    confirming: bool
    report: Report


@dataclass(frozen=True)
class Limit:
    """`rate` is the highest confirmed rate; None if no rate was confirmed.

    `at_least` is True if something other than the server ended the search, so that the limit may be higher.
    """

    goal: Goal
    rate: float | None
    at_least: bool
    explanation: str
    probes: tuple[Probe, ...]


def find_limit(
    plan: Plan, goal: Goal, measure: Measure, on_probe: Callable[[Probe], None] = lambda probe: None
) -> Limit:
    """Searches for the limit. The plan's load sets the arrival process; its rates are replaced."""
    search = _Search(plan, goal, measure, on_probe)
    try:
        return _search(search, goal)
    except _Stopped:
        return search.end_early()


def _search(search: _Search, goal: Goal) -> Limit:
    low, high = search.bracket()
    if low is None:
        return search.end(
            None, False, f"{goal.quantile} was above {goal.target_ms:g} ms even at {search.last_rate:g}/s"
        )
    while high is not None and high / low > 1 + goal.tolerance:
        middle = math.sqrt(low * high)
        outcome = search.probe(middle).outcome
        if outcome == "generator":
            high = None
            break
        low, high = (middle, high) if outcome == "kept" else (low, middle)
    return search.confirm(low, at_least=high is None)


class _Stopped(Exception):
    """The user interrupted a run, which ends the search."""


class _Search:
    def __init__(self, plan: Plan, goal: Goal, measure: Measure, on_probe: Callable[[Probe], None]) -> None:
        if plan.load.closed or plan.load.recorded:
            raise ConfigError("finding a limit needs an open loop with a rate")
        self._plan, self._goal, self._measure, self._on_probe = plan, goal, measure, on_probe
        self._probes: list[Probe] = []
        self.last_rate = goal.start_rate

    def probe(self, rate: float, confirming: bool = False) -> Probe:
        """Measures at a rate, long enough for the quantile to be reported."""
        goal = self._goal
        enough = 5.5 / (1 - QUANTILES[goal.quantile]) / rate
        seconds = max(goal.confirm_s if confirming else goal.probe_s, enough)
        load = replace(self._plan.load, steps=(Step(rate, seconds + self._plan.warmup_s),))
        plan = replace(self._plan, load=load, duration_s=seconds, name=f"{rate:.4g}/s")
        report = self._complete_run(plan)
        outcome, reason = judge(report, goal, confirming)
        if outcome == "generator":  # retried once: this machine may have been busy for a moment
            report = self._complete_run(plan)
            outcome, reason = judge(report, goal, confirming)
        probe = Probe(rate, outcome, report.all_latency.quantiles.get(goal.quantile), reason, confirming, report)
        self.last_rate = rate
        self._probes.append(probe)
        self._on_probe(probe)
        return probe

    def _complete_run(self, plan: Plan) -> Report:
        report = self._measure(plan)
        if report.stopped:
            raise _Stopped
        return report

    def bracket(self) -> tuple[float | None, float | None]:
        """A rate that keeps the target and a rate that does not; None for a bound that was not found."""
        rate = self._goal.start_rate
        first = self.probe(rate).outcome
        if first == "kept":
            while rate * 2 <= self._goal.max_rate:
                outcome = self.probe(rate * 2).outcome
                if outcome != "kept":
                    return rate, rate * 2 if outcome == "broken" else None
                rate *= 2
            return rate, None
        while rate / 2 >= LOWEST_RATE:
            if self.probe(rate / 2).outcome == "kept":
                return rate / 2, rate if first == "broken" else None
            rate /= 2
        return None, None

    def confirm(self, rate: float, at_least: bool) -> Limit:
        """Longer runs, each at a slightly lower rate, until one keeps the target."""
        goal = self._goal
        for _ in range(CONFIRMATIONS):
            probe = self.probe(rate, confirming=True)
            if probe.outcome == "kept":
                more = "; the generator or --max-rate ended the search, so the limit may be higher" if at_least else ""
                text = f"{rate:.4g}/s keeps {goal.quantile} ≤ {goal.target_ms:g} ms, confirmed over {probe.report.seconds:g} s"
                return self.end(rate, at_least, text + more)
            at_least = probe.outcome == "generator"
            rate *= 1 - goal.tolerance
        return self.end(
            None, False, f"no rate was confirmed: the longer runs down to {rate:.4g}/s did not keep the target"
        )

    def end_early(self) -> Limit:
        """The result when the user interrupts the search. Raises ConfigError before the first probe is complete."""
        if not self._probes:
            raise ConfigError("stopped before the first probe was complete")
        kept = [probe.rate for probe in self._probes if probe.outcome == "kept"]
        so_far = (
            f"{max(kept):.4g}/s was the highest rate that kept the target" if kept else "no rate had kept the target"
        )
        return self.end(None, False, f"stopped before a rate was confirmed; {so_far}")

    def end(self, rate: float | None, at_least: bool, explanation: str) -> Limit:
        return Limit(self._goal, rate, at_least, explanation, tuple(self._probes))


def _broken_without_lag(report: Report, goal: Goal) -> bool:
    """Whether the target was missed even from the sent time, with a generator that was late but not busy."""
    service = report.service.quantiles.get(goal.quantile)
    return (
        max(report.generator.worker_cores, default=0.0) <= BUSY_CORE
        and service is not None
        and service > goal.target_ms
    )


def judge(report: Report, goal: Goal, confirming: bool) -> tuple[Outcome, str]:
    """Whether a run kept the target, and why not. "generator": the run is invalid and says nothing about the server."""
    value = report.all_latency.quantiles.get(goal.quantile)
    kept = value is not None and value <= goal.target_ms
    drift = report.steadiness.latency
    if (
        kept
        and confirming
        and report.steadiness.steady is False
        and drift is not None
        and drift.matters
        and drift.drift > 0
    ):
        return "broken", "; ".join(report.steadiness.reasons)
    if kept:  # lag only adds to the latency: an invalid run that keeps the target is conclusive too
        return "kept", ""
    if not report.verdict.valid and not _broken_without_lag(report, goal):
        return "generator", "; ".join(report.verdict.reasons)
    if value is None:
        return "broken", f"{report.failed_share:.1%} failed"
    return "broken", f"{goal.quantile} {value:.3g} ms"
