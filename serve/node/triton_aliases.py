"""Triton's metric names, so that dashboards and tools made for Triton work with Convoy.

https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/metrics.html. Triton's counters lack
the suffix `_total` that the Prometheus client library adds to every counter, so they are exposed untyped.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client.metrics_core import Metric

from serve.energy.nvml import Gpu, GpuState
from serve.energy.source import SourceGone
from serve.telemetry.definitions import BATCHES, QUEUE, REQUESTS, SAMPLES, STAGE, Totals

SUCCESS = {"200", "OK"}
REASONS = {
    "429": "REJECTED", "503": "REJECTED", "504": "REJECTED", "RESOURCE_EXHAUSTED": "REJECTED", "UNAVAILABLE": "REJECTED",
    "DEADLINE_EXCEEDED": "REJECTED", "499": "CANCELED", "CANCELLED": "CANCELED", "500": "BACKEND", "INTERNAL": "BACKEND",
}  # fmt: skip
STAGE_NAMES = {
    "queue": ("nv_inference_queue_duration_us",),
    "decode": ("nv_inference_compute_input_duration_us",),
    "run": ("nv_inference_compute_infer_duration_us",),
    "post": ("nv_inference_compute_output_duration_us",),
}
TOTAL_NAME = "nv_inference_request_duration_us"
ALIASES = {
    SAMPLES.name: "nv_inference_count",
    BATCHES.name: "nv_inference_exec_count",
    QUEUE.name: "nv_inference_pending_request_count",
}

GPU_NAMES: dict[str, tuple[str, Callable[[GpuState], float | None]]] = {
    "nv_gpu_power_usage": ("GPU power in watts.", lambda state: state.power_watts),
    "nv_gpu_power_limit": ("GPU power limit in watts.", lambda state: state.limit_watts),
    "nv_energy_consumption": ("GPU energy in joules since the node agent started.", lambda state: state.joules),
    "nv_gpu_utilization": ("GPU utilization, 0 to 1.", lambda state: state.utilization),
    "nv_gpu_memory_total_bytes": ("Total GPU memory in bytes.", lambda state: state.memory_total),
    "nv_gpu_memory_used_bytes": ("Used GPU memory in bytes.", lambda state: state.memory_used),
}

Labels = tuple[tuple[str, str], ...]


def inference_aliases(totals: Totals) -> Iterator[Metric]:
    """`nv_inference_*` by model and version, from the totals of Convoy's own metrics."""
    sums: dict[str, dict[Labels, float]] = defaultdict(lambda: defaultdict(float))
    for metric, alias in ALIASES.items():
        for key, values in totals.get(metric, {}).items():
            sums[alias][_model(dict(key))] += float(values[0])
    for key, values in totals.get(STAGE.name, {}).items():
        labels = dict(key)
        for name in (*STAGE_NAMES.get(labels["stage"], ()), TOTAL_NAME):
            sums[name][_model(labels)] += float(values[-1]) * 1e6
    for key, values in totals.get(REQUESTS.name, {}).items():
        labels = dict(key)
        if labels["code"] in SUCCESS:
            sums["nv_inference_request_success"][_model(labels)] += float(values[0])
        else:
            reason = ("reason", REASONS.get(labels["code"], "OTHER"))
            sums["nv_inference_request_failure"][*_model(labels), reason] += float(values[0])
    for name, samples in sorted(sums.items()):
        yield _metric(name, "Triton's name for a Convoy metric.", samples)


def _model(labels: Mapping[str, str]) -> Labels:
    return (("model", labels["model"]), ("version", labels["version"]))


def gpu_metrics(gpus: Sequence[Gpu]) -> Iterator[Metric]:
    """`nv_gpu_*` and `nv_energy_consumption` by gpu_uuid, read at each scrape. A value that a GPU does not report is absent."""
    states: list[GpuState] = []
    for gpu in gpus:
        try:
            states.append(gpu.state())
        except SourceGone:  # the energy accountant already logs it, once
            continue
    for name, (help_text, read) in GPU_NAMES.items():
        samples: dict[Labels, float] = {}
        for state in states:
            value = read(state)
            if value is not None:
                samples[(("gpu_uuid", state.uuid),)] = float(value)
        if samples:
            yield _metric(name, help_text, samples)


def _metric(name: str, help_text: str, samples: dict[Labels, float]) -> Metric:
    metric = Metric(name, help_text, "untyped")
    for labels, value in samples.items():
        metric.add_sample(name, dict(labels), value)
    return metric
