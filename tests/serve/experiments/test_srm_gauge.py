from __future__ import annotations

from pathlib import Path

from serve.experiments.srm_gauge import SrmGauge
from serve.telemetry.definitions import SPLIT
from serve.telemetry.exposition import total
from serve.telemetry.mmap_store import MmapWriter, read_files
from serve.telemetry.recorder import Metrics


def shown(folder: Path) -> dict[str, float]:
    return {
        dict(labels)["experiment"]: float(values[0]) for labels, values in total(read_files(folder))[SPLIT.name].items()
    }


def test_an_experiment_is_shown_while_it_runs(tmp_path: Path) -> None:
    gauge = SrmGauge(Metrics(MmapWriter(tmp_path)))
    gauge.show({("nets", 1): 0.5, ("digits", 2): 0.001})
    assert shown(tmp_path) == {"nets": 0.5, "digits": 0.001}
    gauge.show({("nets", 1): 0.25})
    assert shown(tmp_path) == {"nets": 0.25}
