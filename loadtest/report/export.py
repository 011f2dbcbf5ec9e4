"""JSON, and CSV with the columns of NVIDIA's perf_analyzer, so that its spreadsheets and tools work unchanged."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import orjson

from convoy.files import write_file
from loadtest.report.values import Report, to_document

# perf_analyzer's `-f` file; times in microseconds, rows sorted by rising Inferences/Second.
COLUMNS = (
    "Inferences/Second",
    "Client Send",
    "Network+Server Send/Recv",
    "Server Queue",
    "Server Compute Input",
    "Server Compute Infer",
    "Server Compute Output",
    "Client Recv",
    "p50 latency",
    "p90 latency",
    "p95 latency",
    "p99 latency",
)
# Columns that perf_analyzer lacks. They follow its own, so that readers by name or position ignore them.
OURS = ("p99.9 latency", "Avg latency", "Goodput/Second", "Failed", "Accuracy", "Joules/Image", "Valid", "Steady")
# Server stages of Convoy and Triton under perf_analyzer's names.
STAGES: Mapping[str, tuple[str, ...]] = {
    "Server Queue": ("queue",),
    "Server Compute Input": ("receive", "decode", "compute_input"),
    "Server Compute Infer": ("run", "compute_infer"),
    "Server Compute Output": ("post", "send", "compute_output"),
}


def write_json(report: object, path: Path) -> None:
    """Writes a report or another result dataclass as indented JSON. Raises OSError."""
    write_file(path, orjson.dumps(to_document(report), option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS))


def write_csv(reports: Sequence[Report], path: Path) -> None:
    """Writes `csv_text`. Raises OSError."""
    write_file(path, csv_text(reports))


def csv_text(reports: Sequence[Report]) -> str:
    """One row per report; the first column is Concurrency or Request Rate, as in perf_analyzer."""
    closed = all(report.offered_per_s is None for report in reports)
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(("Concurrency" if closed else "Request Rate", *COLUMNS, *OURS))
    for report in sorted(reports, key=lambda report: report.rows_per_s):
        load = report.plan["load"]["concurrency"] if closed else f"{report.offered_per_s or 0:.1f}"
        table.writerow((load, *_perf_analyzer(report), *_ours(report)))
    return out.getvalue()


def _micro(milliseconds: float | None) -> str:
    return "" if milliseconds is None else str(round(milliseconds * 1000))


def _perf_analyzer(report: Report) -> list[str]:
    scraped = report.server.stages_ms if report.server is not None else {}
    stages_ms = scraped or report.answer_stages_ms
    stages = {column: sum(stages_ms.get(name, 0.0) for name in names) for column, names in STAGES.items()}
    # The rest of the time between sending and the last byte is the network and the server's own sending.
    network = max(0.0, (report.service.mean or 0.0) - report.send_ms - report.receive_ms - sum(stages.values()))
    quantiles = [report.quantile(name) for name in ("p50", "p90", "p95", "p99")]
    return [
        f"{report.rows_per_s:.1f}",
        _micro(report.send_ms),
        _micro(network),
        *(_micro(value) for value in stages.values()),
        _micro(report.receive_ms),
        *(_micro(value) for value in quantiles),
    ]


def _ours(report: Report) -> list[str]:
    return [
        _micro(report.quantile("p99.9")),
        _micro(report.total.latency.mean),
        "" if report.goodput_per_s is None else f"{report.goodput_per_s:.1f}",
        str(report.total.failed),
        "" if report.total.accuracy is None else f"{report.total.accuracy:.4f}",
        "" if report.energy_per_image_j is None else f"{report.energy_per_image_j:.4g}",
        str(report.verdict.valid).lower(),
        {True: "true", False: "false", None: "unknown"}[report.steadiness.steady],
    ]
