"""The report of a LoadGen run as a frozen dataclass, whose fields are also its JSON form; its table and its CSV row."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from loadtest.drivers.mlperf.plan import Scenario
from loadtest.drivers.mlperf.results import LoadgenResult
from loadtest.report.terminal import milliseconds
from loadtest.stats.intervals import Interval

QUANTILES = ("p50", "p90", "p95", "p99", "p99.9")


@dataclass(frozen=True)
class SearchStep:
    """A run of the search for the server scenario's rate."""

    qps: float
    p99_ms: float | None
    kept: bool


@dataclass(frozen=True)
class MlperfReport:
    """A run. `result` is LoadGen's, None in accuracy mode. Times in milliseconds unless named otherwise.

    `submission_gaps` say why it is no valid MLPerf submission, `problems` why its figures must not be used. `single_ms` is
    the shortest time of a single sample before the run. `bound_kept`: whether p99 was within `bound_ms` (server scenario).
    """

    scenario: Scenario
    accuracy_mode: bool
    subject: str
    samples_about: str
    made: str
    loadgen: str
    seconds: float
    target_qps: float | None
    single_ms: float
    result: LoadgenResult | None
    bound_ms: float | None
    bound_kept: bool | None
    answered: int
    failures: Mapping[str, int]
    said: Mapping[str, str]
    labelled: int
    accuracy: float | None
    accuracy_interval: Interval | None
    client_cores: float
    submission_gaps: tuple[str, ...]
    problems: tuple[str, ...]
    search: tuple[SearchStep, ...]
    logs: str

    @property
    def failed(self) -> int:
        return sum(self.failures.values())

    def latency(self, name: str) -> float | None:
        """LoadGen's latency at a quantile such as `p99`, in milliseconds; None if there is none."""
        return None if self.result is None else self.result.latency_ms.get(name)


def print_mlperf(console: Console, report: MlperfReport) -> None:
    """Prints the verdicts and the table of a report."""
    mode = ", accuracy mode" if report.accuracy_mode else ""
    console.print(
        Text.assemble(("mlperf ", "bold"), f"{report.scenario}{mode}  {report.subject}  {report.seconds:.1f} s")
    )
    if report.submission_gaps:
        console.print(Text(f"NOT A VALID MLPERF SUBMISSION: {'; '.join(report.submission_gaps)}", "yellow"))
    for problem in report.problems:
        console.print(Text(f"INVALID: {problem}", "bold red"))
    if report.result is not None:
        _print_loadgen(console, report.result)
    console.print(mlperf_table(report))
    for kind, count in report.failures.items():
        text = report.said.get(kind)
        console.print(Text(f"{count:>8} {kind}" + (f", first: {text}" if text else ""), "red"))
    console.print(Text(f"samples: {report.samples_about}; LoadGen {report.loadgen}; its logs: {report.logs}", "dim"))


def _print_loadgen(console: Console, result: LoadgenResult) -> None:
    if result.valid:
        console.print(Text("LoadGen's own checks: VALID", "green"))
        return
    reasons = " ".join(reason for reason in (result.invalid_reason, result.early_stopping) if reason)
    console.print(Text(f"LoadGen's own checks: INVALID: {reasons}", "yellow"))


def mlperf_table(report: MlperfReport) -> Table:
    """Rates, latencies, counts and accuracy."""
    table = Table(show_header=True, header_style="bold", box=None, pad_edge=False)
    for name in ("", "value", ""):
        table.add_column(name, justify="right" if name else "left")
    result = report.result
    if result is not None:
        for name, rate in _rates(report, result):
            table.add_row(name, f"{rate:.1f}", "")
        what = "query" if report.scenario == "multi-stream" else "sample"
        for name in ("mean", *QUANTILES, "max") if report.scenario != "offline" else ():
            bound = "" if name != "p99" or report.bound_ms is None else _bound(report)
            table.add_row(f"{name} ms of a {what}", milliseconds(result.latency_ms.get(name)), bound)
        if report.bound_ms is not None and result.over_bound is not None:
            table.add_row(f"later than {report.bound_ms:g} ms", str(result.over_bound), f"of {result.queries}")
        table.add_row("queries", str(result.queries), "")
    table.add_row("samples answered", str(report.answered), "")
    table.add_row("samples failed", str(report.failed), "")
    if report.accuracy is not None:
        known = report.accuracy_interval
        interval = "" if known is None else f"{known.low:.2%} … {known.high:.2%}"
        table.add_row("accuracy", f"{report.accuracy:.2%}", interval)
    table.add_row("single sample ms", milliseconds(report.single_ms), "shortest before the run")
    return table


def _rates(report: MlperfReport, result: LoadgenResult) -> list[tuple[str, float]]:
    rates = (
        ("target /s", report.target_qps),
        ("scheduled /s", result.scheduled_per_s),
        ("completed /s", result.completed_per_s),
        ("samples /s", result.samples_per_s),
    )
    return [(name, rate) for name, rate in rates if rate is not None]


def _bound(report: MlperfReport) -> str:
    return f"{'≤' if report.bound_kept else '>'} {report.bound_ms:g}: {'kept' if report.bound_kept else 'BROKEN'}"


def mlperf_csv(report: MlperfReport) -> str:
    """A heading and one row; an empty cell is a value that the scenario does not have. Latencies in milliseconds."""
    result = report.result
    cells = {
        "scenario": report.scenario,
        "mode": "accuracy" if report.accuracy_mode else "performance",
        "system": report.subject,
        "seconds": f"{report.seconds:.3f}",
        "target_qps": report.target_qps,
        "scheduled_per_s": None if result is None else result.scheduled_per_s,
        "completed_per_s": None if result is None else result.completed_per_s,
        "samples_per_s": None if result is None else result.samples_per_s,
        "queries": None if result is None else result.queries,
        **{f"{name}_ms": report.latency(name) for name in ("mean", *QUANTILES, "max")},
        "bound_ms": report.bound_ms,
        "bound_kept": report.bound_kept,
        "answered": report.answered,
        "failed": report.failed,
        "accuracy": report.accuracy,
        "single_ms": report.single_ms,
        "loadgen_valid": None if result is None else result.valid,
        "valid_submission": False,
    }
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(cells)
    table.writerow(_cell(value) for value in cells.values())
    return out.getvalue()


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
