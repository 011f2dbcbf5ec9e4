"""Every reader of a node's metrics files gives the same numbers, including those of processes that have ended."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from serve.api.bottleneck import read
from serve.api.live_stats import live_stats
from serve.energy.engine_usage import EngineUsage, Model, User
from serve.node.collector import MetricsCollector
from serve.telemetry.definitions import BATCHES, ENGINES, IN_FLIGHT, QUEUE, SAMPLES, TARGET, WORK
from serve.telemetry.exposition import total
from serve.telemetry.mmap_store import MmapWriter, read_files
from serve.telemetry.recorder import EngineTime, Metrics, ModelRecorder
from serve.telemetry.request_timings import STAGES

LABELS = {"model": "m", "version": "1"}
KEY = tuple(LABELS.items())


def serve_requests(folder: Path, requests: int) -> None:
    """Records as a gateway does: counters, histograms and gauges."""
    metrics = Metrics(MmapWriter(folder))
    recorder = ModelRecorder(metrics, "m", "1")
    for _ in range(requests):
        recorder.request((0.001,) * len(STAGES))
        recorder.code("http", "200")
    recorder.batch(requests, 0.5)
    recorder.queue(requests)
    recorder.engine_share(requests / 4)
    recorder.flush()
    metrics.set(IN_FLIGHT, requests, protocol="http")
    metrics.set(TARGET, requests, **LABELS)
    engine = EngineTime(metrics, "m", "1", 2)
    engine.runs("onnxruntime", "fp32", "passed")
    engine.add(requests)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Metrics files of two processes that have ended, and of this process."""
    folder = tmp_path_factory.mktemp("metrics")
    spawn = multiprocessing.get_context("spawn")
    for requests in (3, 4):
        process = spawn.Process(target=serve_requests, args=(folder, requests))
        process.start()
        process.join()
        assert process.exitcode == 0
    serve_requests(folder, 5)
    return folder


def test_counters_include_all_processes_in_every_reader(folder: Path) -> None:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(MetricsCollector(folder))
    usage = EngineUsage.from_totals(total(read_files(folder)))
    (model,) = live_stats(folder, ["m"])["models"]
    samples = {
        "prometheus": registry.get_sample_value("convoy_samples_total", LABELS),
        "triton": registry.get_sample_value("nv_inference_count", LABELS),
        "bottleneck": read(folder).values(SAMPLES, LABELS)[0],
        "page": model["images"],
    }
    assert samples == dict.fromkeys(samples, 3 + 4 + 5)
    assert usage.on("cpu") == {Model("m", "1"): 2 * (3 + 4 + 5)}
    assert usage.users(Model("m", "1")) == {User("", ""): (3 + 4 + 5) / 4}
    assert read(folder).values(WORK, {**LABELS, "device": "cpu"})[0] == 2 * (3 + 4 + 5)
    assert read(folder).values(BATCHES, LABELS)[0] == registry.get_sample_value("nv_inference_exec_count", LABELS) == 3


def test_gauges_include_only_living_processes_in_every_reader(folder: Path) -> None:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(MetricsCollector(folder))
    (model,) = live_stats(folder, ["m"])["models"]
    waiting = {
        "prometheus": registry.get_sample_value("convoy_queue_rows", LABELS),
        "triton": registry.get_sample_value("nv_inference_pending_request_count", LABELS),
        "bottleneck": read(folder).values(QUEUE, LABELS)[0],
        "page": model["waiting"],
    }
    assert waiting == dict.fromkeys(waiting, 5)
    totals = total(read_files(folder))
    assert totals[ENGINES.name][KEY] == [1]
    assert totals[TARGET.name][KEY] == [5]
    assert live_stats(folder, [])["in_flight"] == 5


def test_a_gauge_that_is_not_a_number_is_absent_in_every_reader(tmp_path: Path) -> None:
    metrics = Metrics(MmapWriter(tmp_path))
    metrics.set(QUEUE, float("nan"), **LABELS)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(MetricsCollector(tmp_path))
    assert QUEUE.name not in total(read_files(tmp_path))
    assert registry.get_sample_value("nv_inference_pending_request_count", LABELS) is None
    assert read(tmp_path).values(QUEUE, LABELS)[0] == 0
