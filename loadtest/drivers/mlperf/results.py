"""LoadGen's own results, read from its detail log (lines of `:::MLLOG` and JSON)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from convoy.errors import ConvoyError

PREFIX = ":::MLLOG "
DETAIL = "mlperf_log_detail.txt"
QUANTILE = re.compile(r"result_([0-9.]+)_percentile_(per_query_)?latency_ns")


@dataclass(frozen=True)
class LoadgenResult:
    """LoadGen's verdict and figures; rates per second. Latencies in milliseconds by quantile ("p99").

    In the multi-stream scenario latencies are of queries, in all others of samples. `scheduled_per_s` and `completed_per_s`
    are the server scenario's, `samples_per_s` is the offline scenario's.
    """

    valid: bool
    invalid_reason: str
    early_stopping: str
    queries: int
    latency_ms: Mapping[str, float] = field(default_factory=dict)
    over_bound: int | None = None
    scheduled_per_s: float | None = None
    completed_per_s: float | None = None
    samples_per_s: float | None = None


def read_result(folder: Path) -> LoadgenResult:
    """Reads the result of a performance run. Raises ConvoyError if LoadGen wrote none."""
    values = read_detail(folder / DETAIL)
    if "result_validity" not in values:
        raise ConvoyError(
            f"LoadGen wrote no result: {values.get('error', 'no reason is logged')}; its logs are in {folder}"
        )
    return LoadgenResult(
        valid=values["result_validity"] == "VALID",
        invalid_reason=_plain(values.get("result_invalid_reason", "")),
        early_stopping=_plain(values.get("early_stopping_result", "")),
        queries=int(values.get("result_query_count", 0)),
        latency_ms=_latency(values),
        over_bound=values.get("result_overlatency_query_count"),
        scheduled_per_s=values.get("result_scheduled_samples_per_sec"),
        completed_per_s=values.get("result_completed_samples_per_sec"),
        samples_per_s=values.get("result_samples_per_second"),
    )


def read_detail(path: Path) -> dict[str, Any]:
    """The last value of each key of a detail log; "error" holds the first error. Raises ConvoyError."""
    values: dict[str, Any] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConvoyError(f"LoadGen's log cannot be read: {error}") from error
    for line in lines:
        if line.startswith(PREFIX):
            entry = orjson.loads(line.removeprefix(PREFIX))
            values[entry["key"]] = entry["value"]
            if entry["key"].startswith("error"):
                values.setdefault("error", entry["value"])
    return values


def _latency(values: Mapping[str, Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    for key, value in values.items():
        match = QUANTILE.fullmatch(key)
        name = "" if match is None else f"p{float(match[1]):g}"
        # A multi-stream log has both kinds; the scenario is judged by its queries.
        if match is not None and (match[2] or name not in found):
            found[name] = value / 1e6
    per_query = "per_query_" if "result_mean_query_latency_ns" in values else ""
    kind = "query_latency_ns" if per_query else "latency_ns"
    found |= {
        name: values[f"result_{name}_{kind}"] / 1e6 for name in ("mean", "max") if f"result_{name}_{kind}" in values
    }
    return found


def _plain(text: str) -> str:
    return " ".join(text.replace(" * ", " ").split())
