"""Collects the metrics of all processes of a node for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from serve.energy.nvml import Gpu
from serve.node.triton_aliases import gpu_metrics, inference_aliases
from serve.telemetry.exposition import collect, total
from serve.telemetry.mmap_store import living_processes, read_files
from serve.telemetry.proc import resident_bytes


class MetricsCollector:
    """Prometheus collector of a node: its processes' metrics files, their memory, and the node's GPUs."""

    def __init__(self, folder: Path, gpus: Sequence[Gpu] = ()) -> None:
        self._folder = folder
        self._gpus = gpus

    def collect(self) -> Iterator[Metric]:
        """All metrics of the node, summed over its processes."""
        totals = total(read_files(self._folder))
        yield from collect(totals)
        yield from inference_aliases(totals)
        yield from gpu_metrics(self._gpus)
        memory = GaugeMetricFamily("process_resident_memory_bytes", "Resident memory of this node's Convoy processes.")
        memory.add_metric([], sum(map(resident_bytes, living_processes(self._folder))))
        yield memory
