"""The HTML page of a result: one file, without scripts and external resources."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from convoy.files import write_file
from loadtest.report.charts import Axis, Band, Bar, Line, chart
from loadtest.report.style import STYLE
from loadtest.report.terminal import milliseconds, verdict_lines
from loadtest.report.values import QUANTILES, GroupReport, Report


def write_page(title: str, sections: Sequence[str], path: Path) -> None:
    """Writes a page of HTML sections. Raises OSError."""
    name = escape(title)
    head = f"<meta charset=utf-8><meta name=viewport content='width=device-width'><title>{name}</title>"
    body = f"<h1>{name}</h1>{''.join(sections)}"
    style = f"<style>{STYLE}</style>"
    write_file(path, f"<!doctype html><html lang=en><head>{head}{style}</head><body>{body}</body></html>")


def report_sections(report: Report, bands: Sequence[Band] = ()) -> list[str]:
    """All sections of one run."""
    return [
        heading(report),
        verdict(report),
        _tiles(report),
        over_time(report, bands),
        distribution(report),
        "<h2>By model and arm</h2>" + _groups(report),
        "<h2>Every request</h2>" + _account(report),
        "<h2>Server and generator</h2>" + _sides(report),
    ]


def heading(report: Report) -> str:
    """The target, protocol, duration, time and payloads of a run."""
    target = report.plan["target"]
    payloads = escape("; ".join(report.payloads))
    facts = " · ".join((target["url"], target["protocol"], f"{report.seconds:g} s", report.made))
    return f"<p class=quiet>{escape(facts)}<br>{payloads}</p>"


def verdict(report: Report) -> str:
    """The verdict as boxes."""
    boxes = []
    for text, style in verdict_lines(report):
        kind = {"bold red": " bad", "yellow": " warn"}.get(style, "")
        boxes.append(f'<div class="verdict{kind}">{escape(text)}</div>')
    return "".join(boxes)


def _tiles(report: Report) -> str:
    tiles = [(f"{report.throughput_per_s:.1f}", "answered /s")]
    if report.offered_per_s is not None:
        tiles.insert(0, (f"{report.offered_per_s:.1f}", "offered /s"))
    if report.goodput_per_s is not None:
        tiles.append((f"{report.goodput_per_s:.1f}", f"good /s (≤ {report.deadline_ms:g} ms)"))
    tiles += [(milliseconds(report.quantile(name)), f"{name} ms{_span(report, name)}") for name in QUANTILES]
    if report.total.accuracy is not None:
        tiles.append((f"{report.total.accuracy:.1%}", "accuracy"))
    tiles.append((str(report.total.failed), "failed"))
    if report.energy_per_image_j is not None and report.server is not None:
        tiles.append((f"{report.energy_per_image_j:.3g}", f"J/image ({report.server.energy_method})"))
    cells = (f"<div class=tile><b>{escape(value)}</b><span>{escape(name)}</span></div>" for value, name in tiles)
    return f"<div class=tiles>{''.join(cells)}</div>"


def _span(report: Report, name: str) -> str:
    span = report.latency_intervals.get(name)
    return "" if span is None else f" ({milliseconds(span.low)}–{milliseconds(span.high)})"


def over_time(report: Report, bands: Sequence[Band] = ()) -> str:
    """Charts of latency, rates and requests in flight over time."""
    shades = list(bands)
    warm = [window for window in report.windows if window.warmup]
    measured = [window for window in report.windows if not window.warmup]
    if warm and measured:
        shades.append(Band(0.0, measured[0].at_s, "warm-up"))
    time = Axis("seconds")
    rows = report.windows
    latency = [
        Line("p99", [(row.at_s, row.p99) for row in rows], "b"),
        Line("p50", [(row.at_s, row.p50) for row in rows], "a"),
    ]
    rates = [
        Line("offered", [(row.at_s, row.offered_per_s) for row in rows], "a"),
        Line("answered", [(row.at_s, row.answered_per_s) for row in rows], "c"),
    ]
    if report.deadline_ms is not None:
        rates.append(Line("in time", [(row.at_s, row.good_per_s) for row in rows], "b"))
    if any(row.failed for row in rows):
        width = rows[-1].at_s - rows[-2].at_s if len(rows) > 1 else 1.0
        rates.append(Line("failed", [(row.at_s, row.failed / width) for row in rows], "d"))
    flight = [Line("in flight", [(row.at_s, float(row.in_flight)) for row in rows], "c")]
    return "".join(
        (
            chart("Latency over time, from the scheduled time", time, Axis("ms", log=True), latency, shades),
            chart("Requests per second", time, Axis("per second"), rates, shades),
            chart("In flight", time, Axis("requests"), flight, shades),
        )
    )


def distribution(report: Report) -> str:
    """Chart of latency by quantile, on a scale where 90 %, 99 % and 99.9 % have equal distances."""
    places = {"p50": 0.301, "p90": 1.0, "p95": 1.301, "p99": 2.0, "p99.9": 3.0}
    ticks = tuple((place, name) for name, place in places.items())
    own = [Line("from the scheduled time", _nines(report.total.latency.quantiles, places), "a", marks=True)]
    if not report.plan["load"]["concurrency"]:
        own.append(
            Line("from the sent time (hides waiting)", _nines(report.service.quantiles, places), "c dash", marks=True)
        )
    spans = report.latency_intervals
    bars = [Bar(places[name], span.low, span.high, "a") for name, span in spans.items()]
    return chart(
        "Latency by quantile", Axis("quantile", ticks=ticks, low=0.2, high=3.1), Axis("ms", log=True), own, bars=bars
    )


def _nines(quantiles: object, places: dict[str, float]) -> list[tuple[float, float | None]]:
    assert isinstance(quantiles, dict)
    return [(place, quantiles.get(name)) for name, place in places.items()]


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table."""
    top = "".join(f"<th>{escape(head)}</th>" for head in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"


def _groups(report: Report) -> str:
    def row(name: str, group: GroupReport) -> list[str]:
        accuracy = "" if group.accuracy is None else f"{group.accuracy:.2%}"
        quantiles = [milliseconds(group.latency.quantiles.get(quantile)) for quantile in QUANTILES]
        return [name, str(group.requests), str(group.failed), *quantiles, accuracy]

    rows = [row(group.name, group) for group in report.by_model] + [
        row(f"arm {group.name}", group) for group in report.by_arm
    ]
    return table(["", "requests", "failed", *QUANTILES, "accuracy"], rows)


def _account(report: Report) -> str:
    account = report.accounting
    rows = [[name, str(count), account.said.get(name, "")] for name, count in account.outcomes.items()]
    rows += [[f"feedback: {name}", str(count), ""] for name, count in account.feedback.items()]
    state = "all accounted for" if account.balanced else "NOT BALANCED"
    summary = f"<p>{account.issued} issued, {state}; {account.warmup} of them in the warm-up.</p>"
    return summary + table(["outcome", "requests", "first message"], rows)


def _sides(report: Report) -> str:
    own = report.generator
    stages = (
        report.server.stages_ms if report.server is not None and report.server.stages_ms else report.answer_stages_ms
    )
    rows = [[f"server: {stage}", f"{milliseconds(value)} ms"] for stage, value in stages.items()]
    if report.outside_server_ms is not None:
        rows.append(
            [
                "outside the server's clock (network, accept queue, event loops)",
                f"{milliseconds(report.outside_server_ms)} ms",
            ]
        )
    if report.server is not None and report.server.problem:
        rows.append(["server metrics", report.server.problem])
    if report.server is not None and report.server.batch_size is not None:
        rows.append(["server: images per batch", f"{report.server.batch_size:.2f}"])
    if report.server is not None and report.server.power_w is not None:
        rows.append([f"server: power ({report.server.energy_source})", f"{report.server.power_w:.1f} W"])
    rows += [
        [f"server: energy per image, {part}", f"{value:.3g} J"]
        for part, value in report.energy_parts_per_image_j.items()
    ]
    lag = own.lag.quantiles
    rows += [
        ["generator", f"{own.driver}, {own.workers} worker{'s' if own.workers > 1 else ''}"],
        ["generator: CPU", f"{own.all_cores:.2f} of {own.host_cores} cores"],
        ["generator: lag p50 / p99", f"{milliseconds(lag.get('p50'))} / {milliseconds(lag.get('p99'))} ms"],
        ["generator: mean wait for a core", f"{milliseconds(own.starved_ms)} ms"],
        ["generator: maximum in flight", str(own.max_in_flight)],
        ["machine: busy", f"{own.host_busy_cores:.2f} of {own.host_cores} cores"],
    ]
    return table(["", ""], rows)
