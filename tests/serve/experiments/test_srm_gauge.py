"""The gauge of the sample-ratio mismatch: one series for each running experiment."""

from __future__ import annotations

from pathlib import Path

from serve.experiments.srm_gauge import SrmGauge
from serve.telemetry.definitions import SPLIT
from serve.telemetry.exposition import total
from serve.telemetry.mmap_store import MmapWriter, read_files
from serve.telemetry.recorder import Metrics


def gauges(folder: Path) -> dict[str, float]:
    return {
        dict(labels)["experiment"]: float(values[0]) for labels, values in total(read_files(folder))[SPLIT.name].items()
    }


def test_only_running_experiments_have_a_gauge(tmp_path: Path) -> None:
    gauge = SrmGauge(Metrics(MmapWriter(tmp_path)))
    gauge.show({("nets", 1): 0.5, ("digits", 2): 0.001})
    assert gauges(tmp_path) == {"nets": 0.5, "digits": 0.001}
    gauge.show({("nets", 1): 0.25})
    assert gauges(tmp_path) == {"nets": 0.25}
