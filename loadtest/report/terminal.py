"""Terminal output: live progress, then a table."""

from __future__ import annotations

import numpy as np
from rich.console import Console, Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from loadtest.coordinator import Run
from loadtest.report.live import LiveDisplay
from loadtest.report.values import QUANTILES, GroupReport, Report
from loadtest.stats.histogram import MIDDLES
from loadtest.stats.intervals import Interval
from loadtest.wire.outcomes import is_ok, outcome_name


def milliseconds(value: float | None) -> str:
    """A value with three significant digits, or a dash."""
    if value is None:
        return "–"
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


class LiveView(LiveDisplay):
    """Shows the progress of a run."""

    def __init__(self, console: Console, title: str) -> None:
        super().__init__(console)
        self._title = title

    def update(self, run: Run, seconds: float) -> None:
        """The progress callback of a run."""
        if self.shown:
            self.show(self._render(run, seconds))

    def _render(self, run: Run, seconds: float) -> Group:
        fold, plan = run.fold, run.plan
        windows = fold.windows
        now = int(np.clip((seconds - windows.origin) / windows.seconds - 1, 0, len(windows) - 1))
        counts = windows.latency[now]
        running = np.cumsum(counts)
        p50, p99 = (
            float(MIDDLES[int(np.searchsorted(running, max(1, np.ceil(share * running[-1]))))]) * 1000
            if running[-1]
            else None
            for share in (0.5, 0.99)
        )
        failures = {outcome_name(code): count for code, count in fold.account.items() if not is_ok(code)}
        phase = "warm-up" if seconds < plan.warmup_s else "measuring" if seconds < plan.end_s else "waiting for answers"
        text = Text.assemble(
            (f"{self._title} ", "bold"),
            f"{phase} {max(0.0, seconds):.0f}/{plan.end_s:.0f} s\n",
            f"{windows.done_ok[now] / windows.seconds:.0f} answers/s   p50 {milliseconds(p50)}  p99 {milliseconds(p99)} ms   ",
            f"{sum(run.in_flight.values())} in flight",
        )
        if failures:
            text.append("\n" + ", ".join(f"{count} {name}" for name, count in failures.items()), "red")
        # The bar is last, because it does not end its line.
        return Group(text, ProgressBar(total=plan.end_s, completed=min(plan.end_s, max(0.0, seconds)), width=60))


def print_report(console: Console, report: Report) -> None:
    """Prints the verdict and the tables of a report."""
    console.print(Text.assemble((report.name, "bold"), f"  {report.plan['target']['url']}  {report.seconds:g} s"))
    for text, style in verdict_lines(report):
        console.print(Text(text, style))
    console.print(summary_table(report))
    groups = (*report.by_model, *report.by_arm)
    if len(groups) > 1:
        console.print(group_table((report.total, *groups), {id(arm) for arm in report.by_arm}))
    _print_sides(console, report)


def verdict_lines(report: Report) -> list[tuple[str, str]]:
    """The verdict and notes that qualify every number of the report, as (text, style)."""
    lines = []
    if not report.verdict.valid:
        lines.append(("INVALID: " + "; ".join(report.verdict.reasons), "bold red"))
    if report.steadiness.steady is not True:
        word = "NOT STEADY" if report.steadiness.steady is False else "steadiness unknown"
        lines.append((f"{word}: " + "; ".join(report.steadiness.reasons), "yellow"))
    lines += [(f"note: {note}", "yellow") for note in report.verdict.notes]
    if report.usable:
        lines.insert(0, ("valid and steady", "green"))
    return lines


def summary_table(report: Report) -> Table:
    """Rates, quantiles, accuracy and energy with their intervals."""
    table = Table(show_header=True, header_style="bold", box=None, pad_edge=False)
    for name in ("", "value", "95 % interval"):
        table.add_column(name, justify="left" if not name else "right")
    if report.offered_per_s is not None:
        table.add_row("offered /s", f"{report.offered_per_s:.1f}", "")
    table.add_row("answered /s", f"{report.throughput_per_s:.1f}", _between(report.throughput_interval))
    if report.goodput_per_s is not None:
        name = f"good /s (≤ {report.deadline_ms:g} ms)"
        table.add_row(name, f"{report.goodput_per_s:.1f}", _between(report.goodput_interval))
    if report.total.rows != report.total.ok:
        table.add_row("images /s", f"{report.rows_per_s:.1f}", "")
    for name in QUANTILES:
        value, span = report.quantile(name), report.latency_intervals.get(name)
        interval = "" if span is None else f"{milliseconds(span.low)} … {milliseconds(span.high)}"
        table.add_row(f"{name} ms", milliseconds(value), interval)
    table.add_row("max ms", milliseconds(report.total.latency.maximum), "")
    if report.total.accuracy is not None and report.total.accuracy_interval is not None:
        known = report.total.accuracy_interval
        table.add_row("accuracy", f"{report.total.accuracy:.2%}", f"{known.low:.2%} … {known.high:.2%}")
    if report.energy_per_image_j is not None and report.server is not None:
        parts = "  ".join(f"{part} {value:.3g}" for part, value in report.energy_parts_per_image_j.items())
        table.add_row(f"J/image ({report.server.energy_method})", f"{report.energy_per_image_j:.4g}", parts)
    return table


def _between(interval: Interval | None) -> str:
    return "" if interval is None else f"{interval.low:.1f} … {interval.high:.1f}"


def group_table(groups: tuple[GroupReport, ...], arms: set[int]) -> Table:
    """A row per group; `arms` holds the `id` of the groups that are arms."""
    table = Table("", "requests", "failed", *QUANTILES, "accuracy", header_style="bold", box=None, pad_edge=False)
    for group in groups:
        name = f"arm {group.name}" if id(group) in arms else group.name
        accuracy = "" if group.accuracy is None else f"{group.accuracy:.2%}"
        quantiles = [milliseconds(group.latency.quantiles.get(quantile)) for quantile in QUANTILES]
        table.add_row(name, str(group.requests), str(group.failed), *quantiles, accuracy)
    return table


def _print_sides(console: Console, report: Report) -> None:
    for name, count in report.accounting.outcomes.items():
        style = "" if name in ("HTTP 200", "gRPC OK") else "red"
        text = report.accounting.said.get(name)
        console.print(Text(f"{count:>8} {name}" + (f", first: {text}" if text else ""), style))
    if report.accounting.feedback:
        console.print("feedback: " + ", ".join(f"{count} {name}" for name, count in report.accounting.feedback.items()))
    stages = (
        report.server.stages_ms if report.server is not None and report.server.stages_ms else report.answer_stages_ms
    )
    if stages:
        times = ", ".join(f"{stage} {milliseconds(value)}" for stage, value in stages.items())
        console.print(f"server ms: {times}; outside its clock {milliseconds(report.outside_server_ms)}")
    if report.server is not None and report.server.problem:
        console.print(Text(f"server metrics: {report.server.problem}", "yellow"))
    own = report.generator
    lag = own.lag.quantiles
    console.print(
        f"generator ({own.driver}): {own.all_cores:.2f} of {own.host_cores} cores, lag p50 {milliseconds(lag.get('p50'))} "
        f"p99 {milliseconds(lag.get('p99'))} ms, wait for a core {milliseconds(own.starved_ms)} ms, "
        f"at most {own.max_in_flight} in flight",
        style="dim",
    )
