"""Builds the report of a run from its sums."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtest.coordinator import Run
from loadtest.plan import Plan
from loadtest.report import verdict
from loadtest.report.values import QUANTILES, Accounting, Generator, GroupReport, Latency, Report, Window
from loadtest.stats import steadiness
from loadtest.stats.fold import Fold, Group
from loadtest.stats.histogram import MIDDLES, Histogram
from loadtest.stats.intervals import Interval, quantile_intervals, rate_interval, share_interval
from loadtest.wire.outcomes import outcome_name

BEYOND = 5  # a quantile is reported only if this many values lie beyond it; the median always is
KEPT_RECORDED = 20  # recorded arrival times that the plan in a report shows


def build_report(run: Run) -> Report:
    """The report of a finished run."""
    plan, fold = run.plan, run.fold
    windows, kept = fold.windows, _complete_windows(run)
    measured, seconds = slice(windows.warmup, windows.warmup + kept), kept * windows.seconds
    total = group_report("all", fold.total, sum(run.labelled))
    accounting, generator = _accounting(run), _generator(run)
    failed = fold.total.requests - fold.total.ok
    throughput = int(windows.done_ok[measured].sum()) / seconds
    return Report(
        name=plan.name,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        plan=plan_document(plan),
        payloads=run.about,
        seconds=seconds,
        offered_per_s=None if plan.load.closed else fold.total.requests / seconds,
        throughput_per_s=throughput,
        throughput_interval=rate_interval(windows.done_ok[measured], windows.seconds, plan.seed),
        rows_per_s=throughput * fold.total.rows / max(1, fold.total.ok),
        deadline_ms=plan.deadline_ms,
        goodput_per_s=None if plan.deadline_ms is None else int(windows.done_good[measured].sum()) / seconds,
        goodput_interval=None
        if plan.deadline_ms is None
        else rate_interval(windows.done_good[measured], windows.seconds, plan.seed),
        failed_share=failed / max(1, fold.total.requests),
        total=total,
        latency_intervals=_latency_intervals(windows.latency[measured], plan.seed, total.latency),
        all_latency=latency_of(fold.total.latency, missing=failed),
        service=latency_of(fold.service),
        send_ms=fold.send_s / max(1, fold.total.ok) * 1000,
        receive_ms=fold.receive_s / max(1, fold.total.ok) * 1000,
        by_model=tuple(
            group_report(name, group, _labelled(run, name)) for name, group in sorted(fold.by_model.items())
        ),
        by_arm=tuple(group_report(name, group, sum(run.labelled)) for name, group in sorted(fold.by_arm.items())),
        accounting=accounting,
        generator=generator,
        steadiness=_steadiness(plan, fold, measured),
        verdict=verdict.judge(plan, generator, total.latency, accounting),
        answer_stages_ms={stage: total_ms / count for stage, (total_ms, count) in run.stages_ms.items()},
        server=run.server,
        energy_per_image_j=None if run.server is None else _per_image(run, run.server.energy_j),
        energy_parts_per_image_j=_parts_per_image(run),
        windows=tuple(_windows(fold))[: measured.stop],
        histogram=fold.total.latency.encode(),
        stopped=run.stopped_s is not None,
    )


def plan_document(plan: Plan) -> dict[str, Any]:
    """A plan as plain data; secrets in headers are masked, long recordings cut."""
    document = asdict(plan)
    document["target"]["headers"] = [[name, "***"] for name, _ in plan.target.headers]
    recorded = document["load"]["recorded"]
    if len(recorded) > KEPT_RECORDED:
        document["load"]["recorded"] = [*recorded[:KEPT_RECORDED], f"... {len(recorded)} in all"]
    return document


def latency_of(histogram: Histogram, missing: int = 0) -> Latency:
    """Mean, maximum and quantiles in milliseconds; `missing` further values count as infinite."""
    total = histogram.total + missing
    quantiles = {}
    for name, share in QUANTILES.items():
        value = histogram.quantile(share, missing)
        if value is not None and (share <= 0.5 or total * (1 - share) >= BEYOND * (1 - 1e-9)):
            quantiles[name] = value * 1000
    mean, maximum = histogram.mean(), histogram.maximum()
    if missing:
        mean = maximum = None
    return Latency(total, None if mean is None else mean * 1000, None if maximum is None else maximum * 1000, quantiles)


def _labelled(run: Run, name: str) -> int:
    """Number of distinct labelled payloads of the traffic with this name."""
    return sum(count for traffic, count in zip(run.plan.traffic, run.labelled, strict=False) if traffic.label == name)


def group_report(name: str, group: Group, distinct: int) -> GroupReport:
    """The report of a group.

    The interval of the accuracy counts at most `distinct` payloads: an image that is sent twice adds no information.
    """
    accuracy = group.correct / group.labelled if group.labelled else None
    samples = min(group.labelled, distinct)
    return GroupReport(
        name=name,
        requests=group.requests,
        ok=group.ok,
        failed=group.requests - group.ok,
        rows=group.rows,
        good=group.good,
        latency=latency_of(group.latency),
        labelled=group.labelled,
        accuracy=accuracy,
        accuracy_interval=None if accuracy is None else share_interval(round(accuracy * samples), samples),
        outcomes=_named(group.outcomes),
    )


def _named(counts: Counter[int]) -> dict[str, int]:
    return {outcome_name(code): count for code, count in sorted(counts.items())}


def _latency_intervals(counts: NDArray[np.int32], seed: int, latency: Latency) -> dict[str, Interval]:
    """Intervals, in milliseconds, of the quantiles in `latency`."""
    intervals = quantile_intervals(counts, tuple(QUANTILES.values()), seed)
    return {
        name: Interval(intervals[share].low * 1000, intervals[share].high * 1000)
        for name, share in QUANTILES.items()
        if name in latency.quantiles and share in intervals
    }


def _accounting(run: Run) -> Accounting:
    fold = run.fold
    return Accounting(
        issued=sum(run.issued.values()),
        warmup=fold.warmup,
        measured=fold.total.requests,
        outcomes=_named(fold.account),
        feedback=_named(fold.feedback),
        said={outcome_name(code): text for code, text in sorted(run.failure_texts.items())},
    )


def _generator(run: Run) -> Generator:
    cpu = sum(run.worker_cpu_s.values())
    sent = sum(run.issued.values())
    starved = run.worker_starved.values()
    return Generator(
        driver=run.driver,
        workers=run.plan.workers,
        worker_cores=tuple(run.worker_cpu_s[number] / run.wall_s for number in sorted(run.worker_cpu_s)),
        starved_ms=sum(waited for waited, _ in starved) / max(1, sum(ran for _, ran in starved)) * 1000,
        all_cores=(cpu + run.parent_cpu_s) / run.wall_s,
        host_cores=os.cpu_count() or 1,
        host_busy_cores=run.host_busy_cores,
        host_stolen_cores=run.host_stolen_cores,
        lag=latency_of(run.fold.lag),
        waited_for_connection=run.fold.waited,
        max_in_flight=sum(run.max_in_flight.values()),
        requests_per_cpu_s=sent / cpu if cpu and sent else None,
        all_sent=not run.unsent,
    )


def _complete_windows(run: Run) -> int:
    """Number of measured windows that were complete when the run ended; at least one."""
    windows = run.fold.windows
    planned = len(windows) - windows.warmup
    if run.stopped_s is None:
        return planned
    return min(planned, max(1, int((run.stopped_s - run.plan.warmup_s) / windows.seconds)))


def _steadiness(plan: Plan, fold: Fold, measured: slice) -> steadiness.Steadiness:
    windows = fold.windows
    medians = [_window_quantile(row, 0.5) for row in windows.latency[measured]]
    rates = windows.done_ok[measured] / windows.seconds
    changing = len({step.rate for step in plan.load.steps}) > 1 or bool(plan.load.recorded)
    kept = np.array([value for value in medians if value is not None])
    before = int(windows.in_flight[windows.warmup - 1]) if windows.warmup else 0
    backlog = int(windows.in_flight[measured.stop - 1]) - before
    return steadiness.judge(kept, rates, fold.total.ok, changing, backlog)


def _window_quantile(counts: np.ndarray[Any, Any], share: float) -> float | None:
    used = np.flatnonzero(counts)
    if not len(used):
        return None
    running = np.cumsum(counts[used])
    return float(MIDDLES[used[np.searchsorted(running, max(1, np.ceil(share * running[-1] - 1e-9)))]])


def _windows(fold: Fold) -> list[Window]:
    windows, rows = fold.windows, []
    for number in range(len(windows)):
        quantiles = [_window_quantile(windows.latency[number], share) for share in (0.5, 0.99)]
        p50, p99 = (None if value is None else value * 1000 for value in quantiles)
        at = windows.origin + number * windows.seconds
        span = windows.seconds + min(0.0, at)  # the first window of the warm-up may begin before the run does
        rows.append(
            Window(
                at_s=max(0.0, at),
                warmup=number < windows.warmup,
                offered_per_s=int(windows.due[number]) / span,
                answered_per_s=int(windows.done_ok[number]) / span,
                good_per_s=int(windows.done_good[number]) / span,
                failed=int(windows.failed[number]),
                in_flight=int(windows.in_flight[number]),
                p50=p50,
                p99=p99,
            )
        )
    return rows


def _per_image(run: Run, joules: float | None) -> float | None:
    """Joules per answered image of the measured time: metrics are scraped first when the warm-up ends."""
    return joules / run.fold.total.rows if joules is not None and run.fold.total.rows else None


def _parts_per_image(run: Run) -> dict[str, float]:
    parts = {} if run.server is None else run.server.energy_parts_j
    shares = {part: _per_image(run, joules) for part, joules in parts.items()}
    return {part: share for part, share in shares.items() if share is not None}
