"""docs/performance.md and its plots, from the results of the sections."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.marks import read_between, write_between
from benchmarks.targets import TARGETS, Line, tables
from loadtest.report.charts import Axis, chart
from loadtest.report.charts import Line as Curve
from loadtest.report.style import STYLE

Row = Mapping[str, Any]
Section = Mapping[str, Any]

BEGIN, END = "<!-- made by make bench: {name} -->", "<!-- end: {name} -->"
STAGES = ("receive", "decode", "queue", "run", "post", "send")
GROWTH = {
    "growth_connections": ("connections", True),
    "growth_images": ("images per request", True),
    "growth_payload": ("payload, KB", True),
    "growth_models": ("models", False),
    "growth_gateways": ("gateways", False),
    "growth_hosts": ("hosts", False),
}


def write(page: Path, name: str, section: Section) -> None:
    """Puts a section's tables between its marks in the page, and its plot beside it."""
    body = "\n\n".join([_origin(section), *render(name, section["rows"], page.parent / "performance")])
    write_between(page, BEGIN.format(name=name), body, END.format(name=name))
    write_between(page, BEGIN.format(name="targets"), targets(page), END.format(name="targets"))


def targets(page: Path) -> str:
    """The table of targets, from the page's other tables."""

    def lines(section: str) -> list[Line]:
        return tables(read_between(page, BEGIN.format(name=section), END.format(name=section)))

    return _table(("work", "target", "reached", "enough"), [one.row(lines(one.section)) for one in TARGETS])


def _origin(section: Section) -> str:
    return f"*{section['date']}, {section['machine']}, {section['versions']}, `{section['command']}`*"


def render(name: str, rows: Sequence[Row], plots: Path) -> list[str]:
    """Markdown blocks of a section."""
    if name in GROWTH:
        return _growth(name, rows, plots)
    if name == "start_up":
        return [
            _table(("", "median", "all"), [(one["name"], _number(one["median"]), _list(one["all"])) for one in rows])
        ]
    if name == "cold_start":
        starts = ("net", "engines", "s to ready, LeNet-5 alone", "s to ready, with them", "s more for each")
        return [_table(starts, [(one["net"], *map(_number, list(one.values())[1:])) for one in rows])]
    if name == "metrics_cost":
        heads = (
            "recording a request, µs",
            "the event loop's whole work on it, µs",
            "rate with metrics, of that without",
        )
        return [_table(heads, [tuple(_number(value) for value in one.values()) for one in rows])]
    if name == "protocols":
        return [_protocols(rows)]
    if name == "precision":
        return [_precision(rows)]
    if name == "event_loop":
        parts = [(one["load"], one["part"], f"{one['share']:.0%}", str(one["failed"])) for one in rows]
        return [_table(("load", "part", "of the loop's time", "failed"), parts)]
    if name == "overload":
        return [_overload(rows)]
    if name == "overload_matrix":
        return [_overload_matrix(rows)]
    if name == "memory":
        return [_table(("", "before, MB", "after, MB", "growth"), [_memory(one) for one in rows])]
    contenders = [one for one in rows if "rps" in one]
    return [_contenders(contenders), *_profiles([one for one in rows if "profile" in one])]


def _contenders(rows: Sequence[Row]) -> str:
    def limit(row: Row) -> float:
        kind = row["name"].rpartition(" ")[2]
        names = ("limit", f"limit-native {kind}" if kind in ("image", "tensor") else "limit")
        same = [one for one in rows if one["name"] in names and one["connections"] == row["connections"]]
        return float(same[0]["rps"]) if same else 0.0

    lines = []
    for row in sorted(rows, key=lambda one: -int(one["connections"])):
        base = limit(row)
        share = row.get("of_limit", row["rps"] / base if base else None)
        quantiles = [_number(row.get(key)) for key in ("p50_ms", "p99_ms")]
        lines.append(
            (
                row["name"],
                str(row["connections"]),
                f"{row['rps']:,.0f}",
                "" if share is None else f"{share:.2f}",
                *quantiles,
                str(row["failed"]),
            )
        )
    return _table(("", "in flight", "requests/s", "of limit", "p50 ms", "p99 ms", "failed"), lines)


def _profiles(rows: Sequence[Row]) -> list[str]:
    lines, bottlenecks = [], []
    for row in rows:
        profile = row["profile"]
        for model in profile["models"]:
            stages = [f"{model['stages_ms'][stage]:.3f}" for stage in STAGES]
            cpu = f"{row['cpu_ms_per_request']:.3f}"
            lines.append((row["name"], *stages, f"{model['total_ms']:.3f}", cpu))
        busy = ", ".join(f"{one['name']} {one['busy']:.0%}" for one in profile["resources"] if one["busy"] > 0.005)
        bottlenecks.append(f"- {row['name']}: bottleneck {profile['bottleneck']} ({busy})")
    heads = ("mean ms by stage", *STAGES, "total", "CPU ms per request, all processes")
    return [_table(heads, lines), "\n".join(bottlenecks)] if lines else []


def _growth(name: str, rows: Sequence[Row], plots: Path) -> list[str]:
    label, log = GROWTH[name]
    lines = [(str(one["size"]), f"{one['rps']:,.0f}", _number(one["p99_ms"]), str(one["failed"])) for one in rows]
    for key, unit in (("rps", "requests/s"), ("p99_ms", "p99 ms")):
        points = [(float(one["size"]), float(one[key])) for one in rows]
        svg(plots / f"{name}_{key}.svg", unit, label, log, points)
    images = " ".join(f"![{label}: {key}](performance/{name}_{key}.svg)" for key in ("rps", "p99_ms"))
    return [_table((label, "requests/s", "p99 ms", "failed"), lines), images]


def svg(path: Path, unit: str, label: str, log: bool, points: Sequence[tuple[float, float]]) -> None:
    """One line as an SVG file of its own."""
    ticks = tuple((value, f"{value:g}") for value, _ in points)
    figure = chart(unit, Axis(label, log, ticks), Axis(unit), [Curve(unit, points, "a", marks=True)])
    found = re.search(r"<svg (viewBox=\"0 0 (\d+) (\d+)\")(.*)</svg>", figure, re.S)
    assert found is not None
    box, width, height, inside = found.groups()
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" {box}'
    paper = '<rect width="100%" height="100%" fill="var(--paper)"/>'
    start, inside = inside.split(">", 1)
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{head}{start}><style>{STYLE}</style>{paper}{inside}</svg>\n", "utf-8")


def _protocols(rows: Sequence[Row]) -> str:
    heads = ("", "requests/s", "of classify, median", "least", "most", "failed")
    lines = [
        (
            one["name"],
            f"{one['rps']:,.0f}",
            *(f"{one[key]:.2f}" for key in ("of_classify", "least", "most")),
            str(one["failed"]),
        )
        for one in rows
    ]
    return _table(heads, lines)


def _precision(rows: Sequence[Row]) -> str:
    heads = (
        "net",
        "engine",
        "precision",
        "gate",
        "requests/s",
        "of fp32",
        "of the tight loop",
        "event loop, of all CPU time",
        "failed",
    )
    lines = [
        (
            one["net"], one["engine"], one["precision"], one["gate"], f"{one['rps']:,.0f}", f"{one['of_fp32']:.2f}",
            f"{one['of_loop']:.2f}", f"{one['outside']:.1%}", str(one["failed"]),
        )
        for one in rows
    ]  # fmt: skip
    return _table(heads, lines)


def _overload(rows: Sequence[Row]) -> str:
    heads = (
        "offered", "per second", "good/s", "of capacity", "p99 ms", "refused/s", "p99 of refusals, ms",
        "client's lateness in it, ms", "late", "unanswered", "CPU ms per answer",
    )  # fmt: skip
    lines = [
        (
            one["name"], f"{one['offered']:,.0f}", f"{one['good']:,.0f}", f"{one['of_capacity']:.2f}",
            _number(one["good_p99_ms"]), f"{one['refused']:,.0f}", _number(one["refused_p99_ms"]),
            _number(one["client_late_p99_ms"]), str(one["late"]), str(one["unanswered"]), _number(one["cpu_ms_per_request"]),
        )
        for one in rows
    ]  # fmt: skip
    return _table(heads, lines)


def _overload_matrix(rows: Sequence[Row]) -> str:
    heads = (
        "net", "picture", "deadline, ms", "capacity/s", "1.5 times", "2 times", "5 times", "5 times, late",
        "client's cores at 5", "server's cores at 5", "5 times, of the cores the client leaves", "half, 1 s after",
    )  # fmt: skip
    lines = [
        (
            one["net"], one["picture"], str(one["deadline_ms"]), f"{one['capacity']:,.0f}",
            *(f"{one[key]:.2f}" for key in ("x1.5", "x2", "x5")), str(one["x5_late"]),
            *(f"{one[key]:.2f}" for key in ("x5_client", "x5_server", "of_cores", "after")),
        )
        for one in rows
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
