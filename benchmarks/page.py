"""Writes docs/performance.md and its plots from the results of the sections."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.marks import read_between, write_between
from benchmarks.peers.settings import TUNINGS, Value
from benchmarks.targets import CPU_COLUMN, TARGETS, Line, tables
from benchmarks.turns import LIMIT
from loadtest.report.charts import Axis, chart
from loadtest.report.charts import Line as Curve
from loadtest.report.style import STYLE

Row = Mapping[str, Any]
Section = Mapping[str, Any]

BEGIN, END = "<!-- made by make bench: {name} -->", "<!-- end: {name} -->"
STAGES = ("receive", "decode", "queue", "run", "post", "send")
HEADS = ("", "in flight", "requests/s", "of limit", "of raw limit", "p50 ms", "p99 ms", CPU_COLUMN, "failed")
GROWTH = {
    "growth_connections": ("connections", True),
    "growth_images": ("images per request", True),
    "growth_payload": ("payload, KB", True),
    "growth_models": ("models", False),
    "growth_gateways": ("gateways", False),
    "growth_hosts": ("hosts", False),
}


def write(page: Path, name: str, section: Section) -> None:
    """Writes a section's tables between its marks in the page, its plots beside it, and both tables made from others."""
    body = "\n\n".join([_origin(section), *render(name, section["rows"], page.parent / "performance")])
    write_between(page, BEGIN.format(name=name), body, END.format(name=name))
    write_between(page, BEGIN.format(name="targets"), targets(page), END.format(name="targets"))
    write_between(page, BEGIN.format(name="peers"), settings(), END.format(name="peers"))


def settings() -> str:
    """The table of the peers' settings, each with its source."""
    lines = [
        (tuning.row, place, f"`{setting.name}` = {_value(setting.value)}", setting.why, setting.source)
        for tuning in TUNINGS
        for place, group in tuning.places.items()
        for setting in group
    ]
    return _table(("row", "where", "setting", "why", "source"), lines)


def _value(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def targets(page: Path) -> str:
    """The table of targets, computed from the other tables of the page."""

    def lines(section: str) -> list[Line]:
        return tables(read_between(page, BEGIN.format(name=section), END.format(name=section)))

    return _table(("workload", "target", "measured", "met"), [target.row(lines(target.section)) for target in TARGETS])


def _origin(section: Section) -> str:
    return f"*{section['date']}, {section['machine']}, {section['versions']}, `{section['command']}`*"


def render(name: str, rows: Sequence[Row], plots: Path) -> list[str]:
    """The Markdown blocks of a section; plots go into the folder `plots`."""
    if name in GROWTH:
        return _growth(name, rows, plots)
    if name == "start_up":
        return [
            _table(("", "median", "all"), [(row["name"], _number(row["median"]), _list(row["all"])) for row in rows])
        ]
    if name == "cold_start":
        starts = ("net", "engines", "s to ready, LeNet-5 alone", "s to ready, with the engines", "added s per engine")
        return [_table(starts, [(row["net"], *map(_number, list(row.values())[1:])) for row in rows])]
    if name == "metrics_cost":
        heads = (
            "recording per request, µs",
            "event loop per request, µs",
            "rate with metrics / rate without",
        )
        return [_table(heads, [tuple(_number(value) for value in row.values()) for row in rows])]
    if name == "protocols":
        return [_protocols(rows)]
    if name == "precision":
        return [_precision(rows)]
    if name == "mlperf":
        return [_mlperf(rows)]
    if name == "event_loop":
        parts = [(row["load"], row["part"], f"{row['share']:.0%}", str(row["failed"])) for row in rows]
        return [_table(("load", "part", "share of the loop's time", "failed"), parts)]
    if name == "overload":
        return [_overload(rows)]
    if name == "overload_matrix":
        return [_overload_matrix(rows)]
    if name == "memory":
        return [_table(("", "before, MB", "after, MB", "growth"), [_memory(row) for row in rows])]
    contenders = [row for row in rows if "rps" in row]
    return [_contenders(contenders), *_profiles([row for row in rows if "profile" in row])]


def _contenders(rows: Sequence[Row]) -> str:
    def limit(row: Row) -> float:
        same = [other for other in rows if other["name"] == LIMIT and other["connections"] == row["connections"]]
        return float(same[0]["rps"]) if same else 0.0

    lines = []
    for row in sorted(rows, key=lambda row: -int(row["connections"])):
        base = limit(row)
        lines.append(
            (
                row["name"],
                str(row["connections"]),
                f"{row['rps']:,.0f}",
                _ratio(row.get("of_limit", row["rps"] / base if base else None)),
                _ratio(row.get("of_raw")),
                *(_number(row.get(key)) for key in ("p50_ms", "p99_ms", "cpu_us")),
                str(row["failed"]),
            )
        )
    return _table(HEADS, lines)


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _profiles(rows: Sequence[Row]) -> list[str]:
    lines, bottlenecks = [], []
    for row in rows:
        profile = row["profile"]
        for model in profile["models"]:
            stages = [f"{model['stages_ms'][stage]:.3f}" for stage in STAGES]
            cpu = f"{row['cpu_ms_per_request']:.3f}"
            lines.append((row["name"], *stages, f"{model['total_ms']:.3f}", cpu))
        busy = ", ".join(
            f"{resource['name']} {resource['busy']:.0%}"
            for resource in profile["resources"]
            if resource["busy"] > 0.005
        )
        bottlenecks.append(f"- {row['name']}: bottleneck {profile['bottleneck']} ({busy})")
    heads = ("mean ms by stage", *STAGES, "total", "CPU ms per request, all processes")
    return [_table(heads, lines), "\n".join(bottlenecks)] if lines else []


def _growth(name: str, rows: Sequence[Row], plots: Path) -> list[str]:
    label, log = GROWTH[name]
    lines = [(str(row["size"]), f"{row['rps']:,.0f}", _number(row["p99_ms"]), str(row["failed"])) for row in rows]
    for key, unit in (("rps", "requests/s"), ("p99_ms", "p99 ms")):
        points = [(float(row["size"]), float(row[key])) for row in rows]
        svg(plots / f"{name}_{key}.svg", unit, label, log, points)
    images = " ".join(f"![{label}: {key}](performance/{name}_{key}.svg)" for key in ("rps", "p99_ms"))
    return [_table((label, "requests/s", "p99 ms", "failed"), lines), images]


def svg(path: Path, unit: str, label: str, log: bool, points: Sequence[tuple[float, float]]) -> None:
    """Writes a line chart of `points` as an SVG file."""
    ticks = tuple((value, f"{value:g}") for value, _ in points)
    figure = chart(unit, Axis(label, log, ticks), Axis(unit), [Curve(unit, points, "a", marks=True)])
    match = re.search(r"<svg (viewBox=\"0 0 (\d+) (\d+)\")(.*)</svg>", figure, re.S)
    assert match is not None
    box, width, height, inside = match.groups()
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" {box}'
    paper = '<rect width="100%" height="100%" fill="var(--paper)"/>'
    start, inside = inside.split(">", 1)
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{head}{start}><style>{STYLE}</style>{paper}{inside}</svg>\n", "utf-8")


def _protocols(rows: Sequence[Row]) -> str:
    heads = ("", "requests/s", "of classify, median", "min", "max", "failed")
    lines = [
        (
            row["name"],
            f"{row['rps']:,.0f}",
            *(f"{row[key]:.2f}" for key in ("of_classify", "least", "most")),
            str(row["failed"]),
        )
        for row in rows
    ]
    return _table(heads, lines)


def _precision(rows: Sequence[Row]) -> str:
    heads = (
        "net",
        "engine",
        "precision",
        "accuracy check",
        "requests/s",
        "of fp32",
        "of the tight loop",
        "event loop, of all CPU time",
        "failed",
    )
    lines = [
        (
            row["net"], row["engine"], row["precision"], row["gate"], f"{row['rps']:,.0f}", f"{row['of_fp32']:.2f}",
            f"{row['of_loop']:.2f}", f"{row['outside']:.1%}", str(row["failed"]),
        )
        for row in rows
    ]  # fmt: skip
    return _table(heads, lines)


def _mlperf(rows: Sequence[Row]) -> str:
    heads = (
        "",
        "samples/s",
        "of in process",
        "of offline",
        "p50 ms",
        "p99 ms",
        "bound, ms",
        "p99 within the bound",
        "failed",
    )
    lines = [
        (
            row["name"],
            *(_number(row.get(key)) for key in ("rate", "of_in_process", "of_offline", "p50_ms", "p99_ms", "bound_ms")),
            {True: "yes", False: "**no**", None: ""}[row.get("bound_kept")],
            str(row["failed"]),
        )
        for row in rows
    ]
    return _table(heads, lines)


def _overload(rows: Sequence[Row]) -> str:
    heads = (
        "offered", "per second", "good/s", "of capacity", "p99 ms", "refused/s", "p99 of refusals, ms",
        "of which the client's own delay, ms", "late", "unanswered", "CPU ms per answer",
    )  # fmt: skip
    lines = [
        (
            row["name"], f"{row['offered']:,.0f}", f"{row['good']:,.0f}", f"{row['of_capacity']:.2f}",
            _number(row["good_p99_ms"]), f"{row['refused']:,.0f}", _number(row["refused_p99_ms"]),
            _number(row["client_late_p99_ms"]), str(row["late"]), str(row["unanswered"]), _number(row["cpu_ms_per_request"]),
        )
        for row in rows
    ]  # fmt: skip
    return _table(heads, lines)


def _overload_matrix(rows: Sequence[Row]) -> str:
    heads = (
        "net", "picture", "deadline, ms", "capacity/s", "1.5 times", "2 times", "5 times", "5 times: late",
        "5 times: client's cores", "5 times: server's cores", "5 times, corrected for the client's cores", "half, 1 s later",
    )  # fmt: skip
    lines = [
        (
            row["net"], row["picture"], str(row["deadline_ms"]), f"{row['capacity']:,.0f}",
            *(f"{row[key]:.2f}" for key in ("x1.5", "x2", "x5")), str(row["x5_late"]),
            *(f"{row[key]:.2f}" for key in ("x5_client", "x5_server", "of_cores", "after")),
        )
        for row in rows
    ]  # fmt: skip
    return _table(heads, lines)


def _memory(row: Row) -> tuple[str, ...]:
    growth = row["after_mb"] / row["before_mb"] - 1
    return row["name"], f"{row['before_mb']:.0f}", f"{row['after_mb']:.0f}", f"{growth:+.1%}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _list(values: Sequence[float]) -> str:
    return ", ".join(map(_number, values))


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
