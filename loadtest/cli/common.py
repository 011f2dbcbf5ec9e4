"""What commands do alike: measure with a live view, write files, end with the right code."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from convoy.errors import ConfigError
from loadtest.coordinator import run_plan
from loadtest.drivers.wrk import run_wrk
from loadtest.plan import Plan
from loadtest.report.build import build_report
from loadtest.report.export import write_csv, write_json
from loadtest.report.page import write_page
from loadtest.report.terminal import LiveView
from loadtest.report.values import QUANTILES, Report
from loadtest.search.limits import Measure

INVALID = 3
NOT_MET = 4


def console() -> Console:
    """Tables go to standard output; wide enough for them where it is no terminal."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=140)


def measurer(driver: str) -> Measure:
    """Measures a plan with a live view on standard error."""
    runner = run_wrk if driver == "wrk" else run_plan

    def measure(plan: Plan) -> Report:
        with LiveView(Console(stderr=True), plan.name) as view:
            return build_report(runner(plan, view.update))

    return measure


def write_outputs(
    given: dict[str, Any], title: str, result: object, reports: Sequence[Report], sections: Sequence[str]
) -> None:
    """Writes the files that were asked for."""
    paths: dict[str, Path | None] = {kind: given.get(f"{kind}_path") for kind in ("json", "csv", "html")}
    try:
        if paths["json"]:
            write_json(result, paths["json"])
        if paths["csv"]:
            write_csv(reports, paths["csv"])
        if paths["html"]:
            write_page(title, sections, paths["html"])
    except OSError as error:
        raise ConfigError(f"cannot write: {error}") from error


def end(reports: Sequence[Report], required: Sequence[str] = ()) -> None:
    """Exits with 3 for numbers that are the generator's own, with 4 for a requirement that was not met."""
    if any(report.total.ok == 0 for report in reports):
        console().print("[bold red]nothing was answered")
        sys.exit(NOT_MET)
    if not all(report.verdict.valid for report in reports):
        sys.exit(INVALID)
    missed = [text for text in required if not all(meets(report, text) for report in reports)]
    if missed:
        console().print(f"[bold red]not met: {', '.join(missed)}")
        sys.exit(NOT_MET)


def meets(report: Report, requirement: str) -> bool:
    """`p99<=50` (ms, failures count as late), `failed<=0.01` (share), `throughput>=100`, `accuracy>=0.7`. Raises ConfigError."""
    match = re.fullmatch(r"\s*([a-z0-9.]+)\s*(<=|>=)\s*([0-9.]+)\s*", requirement)
    values: dict[str, float | None] = {
        "failed": report.failed_share,
        "throughput": report.throughput_per_s,
        "goodput": report.goodput_per_s,
        "accuracy": report.total.accuracy,
        **{name: report.all_latency.quantiles.get(name) for name in QUANTILES},
    }
    if match is None or match[1] not in values:
        raise ConfigError(f"requirement {requirement!r} is not like p99<=50; known: {', '.join(values)}")
    value, bound = values[match[1]], float(match[3])
    return value is not None and (value <= bound if match[2] == "<=" else value >= bound)
