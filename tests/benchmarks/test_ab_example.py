"""The worked example of docs/experiments.md comes out as the page says it does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.ab_example import MODES
from tests.conftest import REPOSITORY


@pytest.mark.slow
def test_both_modes_cover_the_truth_and_pairs_need_several_times_fewer(tmp_path: Path) -> None:
    out = tmp_path / "example.json"
    subprocess.run([sys.executable, "-m", "benchmarks.ab_example", "--json", str(out)], cwd=REPOSITORY, check=True)
    example = json.loads(out.read_text())
    brief, full = example["accuracy"]
    assert full - brief >= 0.03
    settled = {}
    for mode in MODES:
        report = example["reports"][mode]
        (comparison,) = report["comparisons"]
        assert comparison["difference"]["low"] <= full - brief <= comparison["difference"]["high"]
        assert report["sentence"].startswith("Keep full")
        assert all(arm["engine_ms"]["value"] > 0 for arm in report["arms"])
        assert all(arm["energy"]["joules_per_image"]["value"] > 0 for arm in report["arms"])
        settled[mode] = comparison["settled_after"]
    assert settled["paired"] * 2 <= settled["split"]
