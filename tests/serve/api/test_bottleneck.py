"""The profile of a server: stages, busy resources and the bottleneck."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.api.bottleneck import Reading, Window, profile, quantile, read
from serve.config.schema import ModelConfig, Settings
from serve.telemetry.definitions import BUSY, LOOP_BUSY, SECONDS
from serve.telemetry.mmap_store import MmapWriter
from serve.telemetry.recorder import Metrics, ModelRecorder, observe
from serve.telemetry.request_timings import STAGES

STAGE_SECONDS = (0.001, 0.002, 0.003, 0.004, 0.005, 0.006)


@pytest.fixture
def settings() -> Settings:
    return Settings(models=(ModelConfig(name="net"),), cores=2)


def profiled(tmp_path: Path, settings: Settings, engine: float, loop: float, cores: float = 0.0) -> dict[str, Any]:
    """The profile of ten requests in a window of two seconds. `engine`, `loop` and `cores` are busy seconds."""
    metrics = Metrics(MmapWriter(tmp_path))
    recorder = ModelRecorder(metrics, "net", "1")
    recorder.request((9.0,) * 6)  # before the window
    recorder.flush()
    before = read(tmp_path)
    for _ in range(10):
        recorder.request(STAGE_SECONDS)
    recorder.flush()
    metrics.values(BUSY, model="net", version="1")[0] += engine
    metrics.values(LOOP_BUSY)[0] += loop
    after = read(tmp_path)
    start, end = Reading(100.0, 50.0, before.totals), Reading(102.0, 50.0 + cores, after.totals)
    document = profile(Window(start, end), settings, settings.models)
    assert orjson.loads(orjson.dumps(document)) == document
    return document


def test_stages_cover_the_window_only_and_add_up(tmp_path: Path, settings: Settings) -> None:
    document = profiled(tmp_path, settings, engine=0.0, loop=0.0)
    (model,) = document["models"]
    assert model["requests_per_second"] == 5
    assert model["stages_ms"] == pytest.approx({stage: 1.0 + place for place, stage in enumerate(STAGES)})
    assert model["total_ms"] == pytest.approx(sum(model["stages_ms"].values()))
    assert model["p50_ms"] == pytest.approx(21, abs=10)


def test_the_busiest_resource_is_the_bottleneck(tmp_path: Path, settings: Settings) -> None:
    document = profiled(tmp_path, settings, engine=1.9, loop=0.4)
    assert document["bottleneck"] == "engine of net: 95% busy"
    assert {resource["name"]: resource["busy"] for resource in document["resources"]}["event loop"] == pytest.approx(
        0.2
    )


def test_an_idle_server_names_the_longest_stage(tmp_path: Path, settings: Settings) -> None:
    document = profiled(tmp_path, settings, engine=0.1, loop=0.1)
    assert document["bottleneck"] == "none: nothing is saturated; a request of net spends most time in send"


def test_cores_used_by_other_processes_are_the_bottleneck(tmp_path: Path, settings: Settings) -> None:
    document = profiled(tmp_path, settings, engine=0.1, loop=0.1, cores=2.0 * (os.cpu_count() or 1))
    assert document["bottleneck"] == "cores of the machine: 100% busy"


def test_without_requests_there_are_no_stages(tmp_path: Path, settings: Settings) -> None:
    reading = read(tmp_path)
    document = profile(Window(reading, Reading(reading.at + 1, reading.cores_busy, {})), settings, settings.models)
    assert document["models"] == []
    assert document["bottleneck"].startswith("none: no request")


@given(st.lists(st.floats(0, 9), min_size=1, max_size=200), st.floats(0.01, 0.99))
def test_the_quantile_is_in_the_bucket_of_the_exact_one(seconds: list[float], share: float) -> None:
    histogram = np.zeros(len(SECONDS) + 2)
    observe(histogram, np.array(SECONDS), np.array(seconds))
    exact = float(np.quantile(seconds, share, method="inverted_cdf"))
    bounds = [0.0, *SECONDS]
    bucket = int(np.searchsorted(SECONDS, exact))
    assert bounds[bucket] - 1e-12 <= quantile(histogram[:-1], share) <= bounds[bucket + 1] + 1e-12
