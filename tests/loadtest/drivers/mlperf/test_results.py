"""LoadGen's detail log."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from convoy.errors import ConvoyError
from loadtest.drivers.mlperf.results import DETAIL, PREFIX, read_result


def write_log(folder: Path, **values: object) -> None:
    lines = [PREFIX + orjson.dumps({"key": key, "value": value}).decode() for key, value in values.items()]
    (folder / DETAIL).write_text("\n".join(["not a line of the log", *lines]))


def test_a_server_log_is_read(tmp_path: Path) -> None:
    quantiles = {"result_50.00_percentile_latency_ns": 2_000_000, "result_99.90_percentile_latency_ns": 9_000_000}
    write_log(
        tmp_path, **quantiles, result_validity="INVALID", result_invalid_reason="Reduce target QPS. ",
        early_stopping_result=" * Run unsuccessful.  * Processed 5 queries.", result_query_count=5,
        result_overlatency_query_count=1, result_scheduled_samples_per_sec=9.5, result_completed_samples_per_sec=9.1,
    )  # fmt: skip
    result = read_result(tmp_path)
    assert not result.valid
    assert result.invalid_reason == "Reduce target QPS."
    assert result.early_stopping == "Run unsuccessful. Processed 5 queries."
    assert result.latency_ms == {"p50": 2.0, "p99.9": 9.0}
    assert (result.queries, result.over_bound, result.scheduled_per_s, result.completed_per_s) == (5, 1, 9.5, 9.1)


def test_the_latencies_of_a_multi_stream_log_are_of_queries(tmp_path: Path) -> None:
    write_log(
        tmp_path,
        **{
            "result_99.00_percentile_per_query_latency_ns": 8_000_000,
            "result_99.00_percentile_latency_ns": 7_000_000,
            "result_mean_query_latency_ns": 5_000_000,
            "result_mean_latency_ns": 4_000_000,
            "result_validity": "VALID",
        },
    )
    assert read_result(tmp_path).latency_ms == {"p99": 8.0, "mean": 5.0}


def test_a_log_without_a_result_is_an_error_with_loadgens_reason(tmp_path: Path) -> None:
    write_log(tmp_path, error_runtime="Multiple conflicting scenarios", loadgen_version="6")
    with pytest.raises(ConvoyError, match="Multiple conflicting scenarios"):
        read_result(tmp_path)
    (tmp_path / DETAIL).unlink()
    with pytest.raises(ConvoyError, match="cannot be read"):
        read_result(tmp_path)
