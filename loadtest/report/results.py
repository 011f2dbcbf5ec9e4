"""Pages and tables of commands that take several runs or a long one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from rich.table import Table

from loadtest.report.charts import Axis, Band, Bar, Line, chart
from loadtest.report.page import heading, report_sections, table
from loadtest.report.terminal import milliseconds
from loadtest.report.values import QUANTILES, Report
from loadtest.search.compare import METRICS, Comparison
from loadtest.search.limits import Limit
from loadtest.search.sweeps import Soak, Spike

SWEEP_HEADS = ("", "offered /s", "answered /s", *(f"{name} ms" for name in QUANTILES), "failed", "valid", "steady")


def sweep_row(report: Report) -> tuple[str, ...]:
    """A run as a row of a sweep."""
    offered = "" if report.offered_per_s is None else f"{report.offered_per_s:.1f}"
    steady = {True: "yes", False: "no", None: "?"}[report.steadiness.steady]
    quantiles = (milliseconds(report.quantile(name)) for name in QUANTILES)
    valid = "yes" if report.verdict.valid else "NO"
    return (
        report.name,
        offered,
        f"{report.throughput_per_s:.1f}",
        *quantiles,
        f"{report.failed_share:.1%}",
        valid,
        steady,
    )


def rich_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A terminal table with right-aligned numbers."""
    made = Table(header_style="bold", box=None, pad_edge=False)
    for number, head in enumerate(heads):
        made.add_column(head, justify="right" if number else "left")
    for row in rows:
        made.add_row(*row)
    return made


def curve(reports: Sequence[Report], target_ms: float | None = None) -> str:
    """Latency and throughput against rate, with 95 % intervals of p99 as bars; in closed loop the rate is the throughput."""
    rows = sorted(
        ((report.offered_per_s or report.throughput_per_s, report) for report in reports), key=lambda row: row[0]
    )
    lines = [
        Line(name, [(rate, report.quantile(name)) for rate, report in rows], style, marks=True)
        for name, style in (("p99", "b"), ("p90", "c"), ("p50", "a"))
    ]
    if target_ms is not None and rows:
        lines.append(Line("target", [(rows[0][0], target_ms), (rows[-1][0], target_ms)], "d dash"))
    spans = [(rate, report.latency_intervals.get("p99")) for rate, report in rows]
    bars = [Bar(rate, span.low, span.high, "b") for rate, span in spans if span is not None]
    label = (
        "requests per second offered"
        if any(report.offered_per_s for report in reports)
        else "requests per second answered"
    )
    served = Line("answered", [(rate, report.throughput_per_s) for rate, report in rows], "c", marks=True)
    good = Line("in time", [(rate, report.goodput_per_s) for rate, report in rows], "b", marks=True)
    throughput = [served, good] if any(report.goodput_per_s is not None for report in reports) else [served]
    return chart("Latency against rate", Axis(label), Axis("ms", log=True), lines, bars=bars) + chart(
        "Throughput against rate", Axis(label), Axis("per second"), throughput
    )


def sweep_sections(reports: Sequence[Report]) -> list[str]:
    """The notes, the curve and a row per run."""
    rows = [sweep_row(report) for report in reports]
    return [heading(reports[0]), notes(reports), curve(reports), table(SWEEP_HEADS, rows)]


def notes(reports: Sequence[Report]) -> str:
    """The distinct verdicts and notes of several runs, each with the names of its runs."""
    runs_by_text: dict[str, list[str]] = {}
    for report in reports:
        for text in (*(f"INVALID: {reason}" for reason in report.verdict.reasons), *report.verdict.notes):
            runs_by_text.setdefault(text, []).append(report.name)
    boxes = []
    for text, names in runs_by_text.items():
        kind = "bad" if text.startswith("INVALID") else "warn"
        boxes.append(f'<div class="verdict {kind}">{escape(", ".join(names))}: {escape(text)}</div>')
    return "".join(boxes)


def limit_sections(limit: Limit) -> list[str]:
    """The result, the curve through all probes, and the confirming run."""
    reports = [probe.report for probe in limit.probes]
    kind = "" if limit.rate is not None else " bad"
    rows = [
        [f"{probe.rate:.4g}", milliseconds(probe.value_ms) if probe.value_ms is not None else "∞", f"{probe.report.seconds:g}",
         probe.outcome + (" (confirming)" if probe.confirming else ""), probe.reason]
        for probe in limit.probes
    ]  # fmt: skip
    heads = ["rate /s", f"{limit.goal.quantile} ms", "seconds", "outcome", "why"]
    sections = [
        heading(reports[0]),
        f'<div class="verdict{kind}">{escape(limit.explanation)}</div>',
        curve(reports, limit.goal.target_ms),
        table(heads, rows),
    ]
    confirmed = [probe.report for probe in limit.probes if probe.confirming and probe.outcome == "kept"]
    if confirmed:
        sections += ["<h2>The confirming run</h2>", *report_sections(confirmed[-1])[1:]]
    return sections


def spike_sentence(spike: Spike) -> str:
    """The answer in one sentence."""
    if spike.recovery_s is None:
        end = "not back to normal before the run ended"
    else:
        end = f"back to normal {spike.recovery_s:.1f} s after the spike"
    worst, normal = milliseconds(spike.worst_p99_ms), milliseconds(spike.normal_p99_ms)
    failed = f"{spike.failed_in_spike} failed in the spike, {spike.failed_after} after it"
    return f"{end}; p99 of half-second windows rose from {normal} to {worst} ms; {failed}"


def spike_sections(spike: Spike) -> list[str]:
    """The result in one sentence, then the report with the spike marked in its charts."""
    kind = "" if spike.recovery_s is not None else " bad"
    band = Band(spike.spike_from_s, spike.spike_until_s, "spike")
    sections = report_sections(spike.report, [band])
    return [sections[0], f'<div class="verdict{kind}">{escape(spike_sentence(spike))}</div>', *sections[1:]]


def soak_sections(soak: Soak) -> list[str]:
    """What drifted, then the report."""
    summary = "; ".join(soak.findings) or "nothing drifted"
    kind = " warn" if soak.findings else ""
    rows = [[name, f"{trend.drift:+.1%}", "yes" if trend.matters else "no"] for name, trend in soak.drifts.items()]
    sections = report_sections(soak.report)
    drifts = table(["", "drift over the run", "significant and above 10 %"], rows)
    return [sections[0], f'<div class="verdict{kind}">{escape(summary)}</div>', drifts, *sections[1:]]


def comparison_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """A row per metric: its name, ratio, interval and finding."""
    return [
        (
            ratio.metric,
            f"{ratio.ratio:.3f}",
            "" if ratio.interval is None else f"{ratio.interval.low:.3f} … {ratio.interval.high:.3f}",
            ratio.finding.rpartition(", ")[2],
        )
        for ratio in comparison.ratios
    ]


def comparison_sections(comparison: Comparison) -> list[str]:
    """The ratios, then both sides by round."""
    first, second = (escape(name) for name in comparison.names)
    rows = [sweep_row(report) for pair in zip(comparison.first, comparison.second, strict=True) for report in pair]
    bad = "INVALID: the generator was the bottleneck in at least one slice"
    return [
        heading(comparison.first[0]),
        f"<p>A is {first}, B is {second}.</p>",
        "" if comparison.valid else f'<div class="verdict bad">{bad}</div>',
        "<ul>" + "".join(f"<li>{escape(ratio.finding)}</li>" for ratio in comparison.ratios) + "</ul>",
        _by_round(comparison, "Throughput", "per second", METRICS["throughput"]),
        _by_round(comparison, "p50", "ms", METRICS["p50"]),
        _by_round(comparison, "p99", "ms", METRICS["p99"]),
        table(SWEEP_HEADS, rows),
    ]


def _by_round(comparison: Comparison, name: str, unit: str, read: Callable[[Report], float | None]) -> str:
    rounds = range(1, comparison.rounds + 1)
    sides = zip("AB", (comparison.first, comparison.second), "ab", strict=True)
    lines = [
        Line(
            letter, [(number, read(report)) for number, report in zip(rounds, reports, strict=True)], style, marks=True
        )
        for letter, reports, style in sides
    ]
    ticks = tuple((float(number), str(number)) for number in rounds)
    return chart(
        f"{name} by round", Axis("round", ticks=ticks, low=0.5, high=comparison.rounds + 0.5), Axis(unit), lines
    )
