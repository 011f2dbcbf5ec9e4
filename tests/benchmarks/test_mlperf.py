"""The MLPerf section of docs/performance.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.page import render
from benchmarks.targets import TARGETS, tables

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


@pytest.mark.parametrize(("kept", "measured"), [(True, ["0.97", "0.928"]), (False, ["0.97", "0"])])
def test_a_rate_whose_bound_is_not_kept_does_not_meet_its_target(
    kept: bool, measured: list[str], tmp_path: Path
) -> None:
    rows = [*ROWS[:-1], ROWS[-1] | {"bound_kept": kept}]
    lines = tables(render("mlperf", rows, tmp_path)[0])
    found = [target.row(lines) for target in TARGETS if target.section == "mlperf"]
    assert [row[2] for row in found] == measured
    assert [row[3] for row in found] == ["yes", "yes" if kept else "**no**"]
