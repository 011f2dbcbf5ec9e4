"""Sweeps of rate and concurrency, spikes and soaks: the plans derived from a plan, and the analysis of their reports."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from convoy.errors import ConfigError
from loadtest.plan import Plan, Step
from loadtest.report.values import Report, Window
from loadtest.search.limits import Measure
from loadtest.stats.steadiness import Trend, trend

STILL_WINDOWS = 3
SPIKE_WINDOW_S = 0.5
SLACK = 2.0
SLACK_MS = 2.0


def sweep_rates(plan: Plan, rates: Sequence[float], measure: Measure) -> tuple[Report, ...]:
    """A run per rate, in order."""
    loads = [replace(plan.load, steps=(Step(rate, plan.end_s),), concurrency=0) for rate in rates]
    return _measure_each(
        [replace(plan, name=f"{rate:g}/s", load=load) for rate, load in zip(rates, loads, strict=True)], measure
    )


def sweep_concurrency(plan: Plan, levels: Sequence[int], measure: Measure) -> tuple[Report, ...]:
    """A closed-loop run per concurrency."""
    loads = [replace(plan.load, steps=(), concurrency=level) for level in levels]
    return _measure_each(
        [replace(plan, name=f"{level} in flight", load=load) for level, load in zip(levels, loads, strict=True)],
        measure,
    )


def _measure_each(plans: Sequence[Plan], measure: Measure) -> tuple[Report, ...]:
    """The reports of all plans, or those up to the run that the user interrupted."""
    reports: list[Report] = []
    for plan in plans:
        reports.append(measure(plan))
        if reports[-1].stopped:
            break
    return tuple(reports)


def parse_series(text: str) -> tuple[float, ...]:
    """`10,20,50` or `START:END:STEP` or `START:END:xFACTOR`. Raises ConfigError."""
    try:
        if ":" not in text:
            values = [float(part) for part in text.split(",")]
        else:
            first, last, step = text.split(":")
            grow: Callable[[float], float]
            grow = (
                (lambda value: value * float(step[1:])) if step.startswith("x") else (lambda value: value + float(step))
            )
            values = [float(first)]
            while grow(values[-1]) <= float(last) * (1 + 1e-9) and grow(values[-1]) > values[-1] and len(values) < 100:
                values.append(grow(values[-1]))
    except ValueError as error:
        raise ConfigError(f"{text!r} is neither 10,20,50 nor START:END:STEP nor START:END:xFACTOR") from error
    if not values or min(values) <= 0:
        raise ConfigError(f"{text!r} contains values that are not positive")
    return tuple(values)


@dataclass(frozen=True)
class Spike:
    """The effect of a spike. `recovery_s` counts from the end of the spike; None if the run ended before the recovery."""

    report: Report
    spike_from_s: float
    spike_until_s: float
    normal_p99_ms: float | None
    worst_p99_ms: float | None
    failed_in_spike: int
    failed_after: int
    recovery_s: float | None


def measure_spike(plan: Plan, times: float, before_s: float, spike_s: float, after_s: float, measure: Measure) -> Spike:
    """Offers the plan's rate, then `times` that rate for `spike_s` seconds, then the plan's rate again. Raises ConfigError."""
    if not plan.load.steps:
        raise ConfigError("a spike needs an open loop with a rate")
    rate = plan.load.steps[0].rate
    steps = (Step(rate, plan.warmup_s + before_s), Step(rate * times, spike_s), Step(rate, after_s))
    report = measure(
        replace(
            plan,
            load=replace(plan.load, steps=steps),
            duration_s=before_s + spike_s + after_s,
            window_s=SPIKE_WINDOW_S,
        )
    )
    begin = plan.warmup_s + before_s
    return read_spike(report, begin, begin + spike_s)


def read_spike(report: Report, begin: float, end: float) -> Spike:
    """Analyses a spike. The server has recovered after three windows in a row without failures and with a p99 near normal."""
    measured = [window for window in report.windows if not window.warmup]
    width = measured[1].at_s - measured[0].at_s if len(measured) > 1 else 0.0
    before = [window for window in measured if window.at_s + width <= begin + 1e-6]
    during = [window for window in measured if begin <= window.at_s + 1e-6 < end]
    after = [window for window in measured if window.at_s >= end - 1e-6]
    usual = [window.p99 for window in before if window.p99 is not None]
    normal = statistics.median(usual) if usual else None
    worst = [window.p99 for window in (*during, *after) if window.p99 is not None]
    recovered = None if normal is None else _first_still(after, max(max(usual), normal * SLACK, normal + SLACK_MS))
    return Spike(
        report=report,
        spike_from_s=begin,
        spike_until_s=end,
        normal_p99_ms=normal,
        worst_p99_ms=max(worst, default=None),
        failed_in_spike=sum(window.failed for window in during),
        failed_after=sum(window.failed for window in after),
        recovery_s=None if recovered is None else max(0.0, recovered - end),
    )


def _first_still(windows: list[Window], limit_ms: float) -> float | None:
    run = 0
    for number, window in enumerate(windows):
        run = run + 1 if not window.failed and (window.p99 is None or window.p99 <= limit_ms) else 0
        if run == STILL_WINDOWS:
            return windows[number - STILL_WINDOWS + 1].at_s
    return None


@dataclass(frozen=True)
class Soak:
    """A long run: the relative drift of each series over it, and the server's memory before and after."""

    report: Report
    drifts: dict[str, Trend]
    memory_mb: tuple[float, float] | None

    @property
    def findings(self) -> tuple[str, ...]:
        """A sentence for each series that drifted."""
        found = [f"{name} drifted by {drift.drift:+.0%}" for name, drift in self.drifts.items() if drift.matters]
        if self.memory_mb is not None and self.memory_mb[1] > self.memory_mb[0] * 1.2:
            found.append(f"the server's memory grew from {self.memory_mb[0]:.0f} to {self.memory_mb[1]:.0f} MB")
        return tuple(found)


def read_soak(report: Report) -> Soak:
    """The drifts of a long run."""
    measured = [window for window in report.windows if not window.warmup]
    series = {
        "p50": [window.p50 for window in measured if window.p50 is not None],
        "p99": [window.p99 for window in measured if window.p99 is not None],
        "throughput": [window.answered_per_s for window in measured],
        "requests in flight": [float(window.in_flight) for window in measured],
    }
    drifts = {name: trend(np.array(values)) for name, values in series.items() if len(values) >= STILL_WINDOWS}
    return Soak(report, drifts, report.server.memory_mb if report.server is not None else None)
