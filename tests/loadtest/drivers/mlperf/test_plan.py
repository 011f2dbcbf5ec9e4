"""Plans, and what separates a run from a submission."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from convoy.errors import ConfigError
from loadtest.drivers.mlperf.plan import MlperfPlan, Scenario, submission_gaps
from tests.loadtest.drivers.mlperf.graphs import FailingSubject


@pytest.mark.parametrize(
    ("scenario", "seconds", "queries", "samples", "texts"),
    [
        ("server", 60, 10_000, 10_000, ["60 s, the rules require at least 600 s"]),
        ("server", 600, 10_000, 10_000, []),
        ("multi-stream", 600, 661, 5288, ["661 queries, the rules require at least 662"]),
        ("offline", 600, 1, 24_575, ["24575 samples"]),
        ("offline", 60, 1, 100, ["60 s", "100 samples"]),
    ],
)
def test_a_run_that_breaks_a_rule_says_which(
    scenario: Scenario, seconds: float, queries: int, samples: int, texts: list[str]
) -> None:
    gaps = submission_gaps(scenario, seconds, queries, samples)
    assert len(gaps) == len(texts) + 1
    assert all(text in gap for text, gap in zip(texts, gaps, strict=False))
    assert "review by MLCommons" in gaps[-1]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"qps": 0.0}, "--qps must be positive"),
        ({"qps": 5.0, "scenario": "single-stream"}, "waits for each answer"),
        ({"latency_ms": float("nan")}, "--latency-ms"),
        ({"duration_s": 0.0}, "--duration"),
        ({"samples_per_query": 0}, "--samples-per-query"),
        ({"seed": -1}, "--seed"),
    ],
)
def test_a_plan_that_cannot_be_run_is_refused(change: dict[str, Any], text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=text):
        MlperfPlan(**{"subject": FailingSubject(), "scenario": "server", "logs": tmp_path, **change})
