"""Server-side figures: stage times and energy, scraped from Prometheus metrics before and after the measured time."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic

from prometheus_client.parser import text_string_to_metric_families

from loadtest.wire import direct

TIMEOUT_S = 5.0
Key = tuple[str, tuple[tuple[str, str], ...]]

CONVOY_STAGES = ("receive", "decode", "queue", "run", "post", "send")
TRITON_STAGES = {
    "queue": "nv_inference_queue_duration_us",
    "compute_input": "nv_inference_compute_input_duration_us",
    "compute_infer": "nv_inference_compute_infer_duration_us",
    "compute_output": "nv_inference_compute_output_duration_us",
}
ENERGY = ("convoy_energy_joules_total", "nv_energy_consumption")
MEMORY = "process_resident_memory_bytes"


@dataclass(frozen=True)
class Sample:
    """One scrape; `at` is its time on the monotonic clock."""

    at: float
    values: Mapping[Key, float]


@dataclass(frozen=True)
class ServerSide:
    """Differences of the metrics over the measured time. Stages are mean milliseconds per request; energy in joules.

    `energy_parts_j` splits `energy_j` by its use (model, idle, other) where the server reports that.
    """

    stages_ms: Mapping[str, float] = field(default_factory=dict)
    batch_size: float | None = None
    energy_j: float | None = None
    energy_parts_j: Mapping[str, float] = field(default_factory=dict)
    energy_source: str = ""
    energy_method: str = ""
    power_w: float | None = None
    memory_mb: tuple[float, float] | None = None
    problem: str = ""


def read_page(url: str) -> Sample:
    """Scrapes once. Raises OSError when the URL cannot be read, ValueError when it does not serve Prometheus metrics."""
    with direct.fetch(url, timeout=TIMEOUT_S) as answer:
        text = answer.read().decode("utf-8", "replace")
    values = {
        (sample.name, tuple(sorted(sample.labels.items()))): float(sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    return Sample(monotonic(), values)


class Scraper:
    """Scrapes at the beginning and the end of the measured time, in its own thread."""

    def __init__(self, url: str | None, first_at: float) -> None:
        self._url = url
        self._first: Sample | None = None
        self._problem = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read_first, args=(first_at,), daemon=True)
        if url:
            self._thread.start()

    def _read_first(self, at: float) -> None:
        if not self._stop.wait(max(0.0, at - monotonic())):
            self._first = self._read()

    def _read(self) -> Sample | None:
        assert self._url is not None
        try:
            return read_page(self._url)
        except (OSError, ValueError) as error:
            self._problem = f"{self._url}: {error}"
            return None

    def finish(self) -> ServerSide | None:
        """The differences; None without a URL."""
        if not self._url:
            return None
        self._stop.set()
        self._thread.join()
        last = self._read()
        if self._first is None or last is None:
            return ServerSide(problem=self._problem or "the metrics were not read")
        return difference(self._first, last)


def difference(first: Sample, last: Sample) -> ServerSide:
    """The changes between two scrapes of one server."""
    stages = _convoy_stages(first, last) or _triton_stages(first, last)
    energy, source, method = _energy(first, last)
    memory = tuple(
        sum(value for key, value in sample.values.items() if key[0] == MEMORY) / 1e6 for sample in (first, last)
    )
    return ServerSide(
        stages_ms=stages,
        batch_size=_batch_size(first, last),
        energy_j=energy,
        energy_parts_j=_energy_parts(first, last),
        energy_source=source,
        energy_method=method,
        power_w=None if energy is None else energy / (last.at - first.at),
        memory_mb=(memory[0], memory[1]) if memory[1] else None,
    )


def _delta(first: Sample, last: Sample, name: str, **labels: str) -> float:
    """Growth of all series of a counter that have these labels; a counter that was reset counts from zero."""
    total = 0.0
    for key, value in last.values.items():
        if key[0] == name and labels.items() <= dict(key[1]).items():
            before = first.values.get(key, 0.0)
            total += value - before if value >= before else value
    return total


def _convoy_stages(first: Sample, last: Sample) -> dict[str, float]:
    stages = {}
    for stage in CONVOY_STAGES:
        count = _delta(first, last, "convoy_stage_seconds_count", stage=stage)
        if count:
            stages[stage] = _delta(first, last, "convoy_stage_seconds_sum", stage=stage) / count * 1000
    return stages


def _triton_stages(first: Sample, last: Sample) -> dict[str, float]:
    count = _delta(first, last, "nv_inference_request_success")
    return {stage: _delta(first, last, name) / count / 1000 for stage, name in TRITON_STAGES.items()} if count else {}


def _batch_size(first: Sample, last: Sample) -> float | None:
    for samples, batches in (
        ("convoy_samples_total", "convoy_batches_total"),
        ("nv_inference_count", "nv_inference_exec_count"),
    ):
        count = _delta(first, last, batches)
        if count:
            return _delta(first, last, samples) / count
    return None


def _energy(first: Sample, last: Sample) -> tuple[float | None, str, str]:
    for name in ENERGY:
        labels = [dict(key[1]) for key in last.values if key[0] == name]
        if labels:
            sources = "+".join(sorted({pairs.get("source", "nvml") for pairs in labels}))
            methods = "+".join(sorted({pairs.get("method", "measured") for pairs in labels}))
            return _delta(first, last, name), sources, methods
    return None, "", ""


def _energy_parts(first: Sample, last: Sample) -> dict[str, float]:
    parts = sorted(
        {part for name, labels in last.values if name == ENERGY[0] for label, part in labels if label == "part"}
    )
    return {part: _delta(first, last, ENERGY[0], part=part) for part in parts}
