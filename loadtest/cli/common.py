"""Shared by the commands: measuring with a live view, output files, requirements and exit codes."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
    """The console on standard output; wide enough for tables if that is not a terminal."""
    terminal = Console(highlight=False)
    return terminal if terminal.is_terminal else Console(highlight=False, width=140)


def measurer(driver: str) -> Measure:
    """A function that measures a plan with this driver and shows its progress on standard error."""
    runner = run_wrk if driver == "wrk" else run_plan

    def measure(plan: Plan) -> Report:
        with LiveView(Console(stderr=True), plan.name) as view:
            return build_report(runner(plan, view.update))

    return measure


def write_outputs(
    options: dict[str, Any], title: str, result: object, reports: Sequence[Report], sections: Sequence[str]
) -> None:
    """Writes the files that the options ask for. Raises ConfigError."""
    paths: dict[str, Path | None] = {kind: options.get(f"{kind}_path") for kind in ("json", "csv", "html")}
    try:
        if paths["json"]:
            write_json(result, paths["json"])
        if paths["csv"]:
            write_csv(reports, paths["csv"])
        if paths["html"]:
            write_page(title, sections, paths["html"])
    except OSError as error:
        raise ConfigError(f"cannot write: {error}") from error


@dataclass(frozen=True)
class Requirement:
    """`p99<=50` (ms, failures count as late), `failed<=0.01` (share), `throughput>=100`, `accuracy>=0.7`."""

    name: str
    most: bool
    bound: float

    def __str__(self) -> str:
        return f"{self.name}{'<=' if self.most else '>='}{self.bound:g}"

    def met(self, report: Report) -> bool:
        """Whether a report meets the requirement; a value that was not measured does not."""
        value = (
            REQUIRABLE[self.name](report) if self.name in REQUIRABLE else report.all_latency.quantiles.get(self.name)
        )
        return value is not None and (value <= self.bound if self.most else value >= self.bound)


REQUIRABLE: dict[str, Callable[[Report], float | None]] = {
    "failed": lambda report: report.failed_share,
    "throughput": lambda report: report.throughput_per_s,
    "goodput": lambda report: report.goodput_per_s,
    "accuracy": lambda report: report.total.accuracy,
}


def parse_requirement(text: str) -> Requirement:
    """Parses text such as `p99<=50`. Raises ConfigError."""
    known = (*QUANTILES, *REQUIRABLE)
    match = re.fullmatch(r"\s*([a-z0-9.]+)\s*(<=|>=)\s*([0-9]+(?:\.[0-9]+)?)\s*", text)
    if match is None or match[1] not in known:
        raise ConfigError(f"requirement {text!r} is not like p99<=50; known: {', '.join(known)}")
    return Requirement(match[1], match[2] == "<=", float(match[3]))


def end(reports: Sequence[Report], required: Sequence[Requirement] = ()) -> None:
    """Exits with 3 if the generator was the bottleneck, with 4 if no request succeeded or a requirement was not met."""
    if any(report.total.ok == 0 for report in reports):
        console().print("[bold red]no request succeeded")
        sys.exit(NOT_MET)
    if not all(report.verdict.valid for report in reports):
        sys.exit(INVALID)
    missed = [str(bound) for bound in required if not all(bound.met(report) for report in reports)]
    if missed:
        console().print(f"[bold red]not met: {', '.join(missed)}")
        sys.exit(NOT_MET)
