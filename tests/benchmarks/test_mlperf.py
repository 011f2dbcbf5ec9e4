"""The MLPerf section of docs/performance.md."""

from __future__ import annotations

from pathlib import Path

from benchmarks.page import render

ROWS = [
    {"name": "in process, single-stream", "p50_ms": 10.0, "failed": 0},
    {"name": "in process, offline", "rate": 100.0, "of_in_process": 1.0, "failed": 0},
    {"name": "HTTP, offline", "rate": 97.0, "of_in_process": 0.97, "failed": 0},
    {
        "name": "HTTP, server", "rate": 90.0, "of_offline": 0.928, "p50_ms": 20.0, "p99_ms": 150.0, "bound_ms": 200.0,
        "bound_kept": True, "failed": 0,
    },
]  # fmt: skip


def test_the_rows_are_rendered(tmp_path: Path) -> None:
    (text,) = render("mlperf", ROWS, tmp_path)
    assert "| HTTP, offline | 97 | 0.97 |  |  |  |  |  | 0 |" in text
    assert "| HTTP, server | 90 |  | 0.928 | 20 | 150 | 200 | yes | 0 |" in text
