"""Metrics under the names that Triton uses."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from serve.energy.nvml import find_gpus
from serve.node.collector import MetricsCollector
from serve.telemetry.mmap_store import MmapWriter
from serve.telemetry.recorder import Metrics, ModelRecorder
from serve.telemetry.request_timings import STAGES
from tests.serve.energy.simulated import Driver

MODEL = {"model": "m", "version": "1"}


def registry_of(folder: Path, driver: Driver | None = None) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(MetricsCollector(folder, find_gpus(driver) if driver else ()))
    return registry


def test_requests_batches_and_times_have_triton_names(tmp_path: Path) -> None:
    recorder = ModelRecorder(Metrics(MmapWriter(tmp_path)), "m", "1")
    for _ in range(3):
        recorder.request(tuple(0.001 * place for place in range(1, len(STAGES) + 1)))
        recorder.code("http", "200")
    recorder.code("grpc", "OK")
    for code in ("503", "RESOURCE_EXHAUSTED", "499", "400"):
        recorder.code("http", code)
    recorder.batch(3, 0.012)
    recorder.queue(7)
    recorder.flush()
    registry = registry_of(tmp_path)
    expected = {
        "nv_inference_request_success": 4,
        "nv_inference_count": 3,
        "nv_inference_exec_count": 1,
        "nv_inference_pending_request_count": 7,
        "nv_inference_request_duration_us": 3 * 21_000,
        "nv_inference_compute_input_duration_us": 3 * 2_000,
        "nv_inference_queue_duration_us": 3 * 3_000,
        "nv_inference_compute_infer_duration_us": 3 * 4_000,
        "nv_inference_compute_output_duration_us": 3 * 5_000,
    }
    for name, value in expected.items():
        assert registry.get_sample_value(name, MODEL) == pytest.approx(value), name
    for reason, count in (("REJECTED", 2), ("CANCELED", 1), ("OTHER", 1)):
        assert registry.get_sample_value("nv_inference_request_failure", MODEL | {"reason": reason}) == count


def test_gpus_have_triton_names_and_unknown_values_are_absent(tmp_path: Path) -> None:
    driver = Driver(
        [{"millijoules": 0.0, "milliwatts": 61_500, "percent": 40, "memory": 8e9, "used": 1e9}, {"percent": 5}]
    )
    registry = registry_of(tmp_path, driver)
    driver.gpus[0]["millijoules"] = 5000.0
    gpu = {"gpu_uuid": "GPU-0"}
    assert registry.get_sample_value("nv_gpu_power_usage", gpu) == 61.5
    assert registry.get_sample_value("nv_energy_consumption", gpu) == 5.0
    assert registry.get_sample_value("nv_gpu_utilization", gpu) == 0.4
    assert registry.get_sample_value("nv_gpu_memory_used_bytes", gpu) == 1e9
    assert registry.get_sample_value("nv_gpu_power_limit", gpu) is None
    assert registry.get_sample_value("nv_gpu_power_usage", {"gpu_uuid": "GPU-1"}) is None


def test_without_a_gpu_there_is_no_gpu_metric_and_memory_counts_living_processes(tmp_path: Path) -> None:
    MmapWriter(tmp_path)
    text = generate_latest(registry_of(tmp_path)).decode()
    assert "nv_gpu" not in text
    assert "process_resident_memory_bytes 0" not in text
    assert "process_resident_memory_bytes" in text
