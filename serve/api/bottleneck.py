"""The profile of a node: where requests spend time and which resource limits throughput, from two readings of its metrics.

The stages of a request add up to its duration. The longest stage is not the bottleneck (a queue is long because something else is
busy), so the bottleneck is determined from the utilisation of each resource.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from serve.config.base import TENSOR_SUFFIX
from serve.config.schema import ModelConfig, Settings
from serve.config.thread_plan import plan_threads
from serve.telemetry.definitions import (
    BUSY,
    DECODE_BUSY,
    LOOP_BUSY,
    SAMPLES,
    SECONDS,
    STAGE,
    TOTAL,
    Definition,
    Totals,
)
from serve.telemetry.exposition import total
from serve.telemetry.mmap_store import Labels, Values, read_files
from serve.telemetry.proc import busy_core_seconds, machine_cores
from serve.telemetry.request_timings import STAGES

SATURATED = 0.85  # busy share from which a resource counts as the bottleneck


@dataclass(frozen=True)
class Reading:
    """The node's metric totals at one time, and the core-seconds its CPU was busy.

    `at` is monotonic, in seconds.
    """

    at: float
    cores_busy: float
    totals: Totals

    def values(self, definition: Definition, labels: Labels) -> Values:
        """The total of a series (shape: the definition's slots); zeros if it does not exist."""
        sums = self.totals.get(definition.name, {})
        return sums.get(tuple(sorted(labels.items())), np.zeros(definition.slots))


def read(folder: Path) -> Reading:
    """Reads the metrics files in `folder`. Blocks for about a millisecond."""
    totals = total(read_files(folder))
    return Reading(time.monotonic(), busy_core_seconds(), totals)


@dataclass(frozen=True)
class Window:
    """The time between two readings."""

    before: Reading
    after: Reading

    @property
    def seconds(self) -> float:
        """Length of the window."""
        return self.after.at - self.before.at

    def grown(self, definition: Definition, **labels: str) -> Values:
        """Growth of a series."""
        return self.after.values(definition, labels) - self.before.values(definition, labels)

    def rate(self, definition: Definition, **labels: str) -> float:
        """Growth per second of a counter, or of a histogram's sum."""
        return float(self.grown(definition, **labels)[-1]) / self.seconds


def profile(window: Window, settings: Settings, served: Sequence[ModelConfig]) -> dict[str, Any]:
    """The profile of the served models as a JSON document; times in milliseconds, `busy` from 0 to 1."""
    resources = _resources(window, settings, served)
    models = [document for model in served for document in _models(window, model.name, model.version)]
    return {
        "seconds": round(window.seconds, 3),
        "models": models,
        "resources": [{"name": name, "busy": round(busy, 3)} for name, busy in resources.items()],
        "bottleneck": _bottleneck(resources, models),
    }


def _models(window: Window, name: str, version: str) -> list[dict[str, Any]]:
    forms = ({"model": form, "version": version} for form in (name, name + TENSOR_SUFFIX))
    return [_model(window, labels) for labels in forms if window.grown(TOTAL, **labels)[:-1].sum() > 0]


def _model(window: Window, labels: dict[str, str]) -> dict[str, Any]:
    durations = window.grown(TOTAL, **labels)
    count = float(durations[:-1].sum())
    stages = {stage: float(window.grown(STAGE, stage=stage, **labels)[-1]) / count * 1000 for stage in STAGES}
    return {
        "name": labels["model"],
        "requests_per_second": round(count / window.seconds, 1),
        "images_per_second": round(window.rate(SAMPLES, **labels), 1),
        "stages_ms": {stage: round(ms, 4) for stage, ms in stages.items()},
        "total_ms": round(float(durations[-1]) / count * 1000, 4),
        "p50_ms": round(quantile(durations[:-1], 0.5) * 1000, 3),
        "p99_ms": round(quantile(durations[:-1], 0.99) * 1000, 3),
    }


def quantile(counts: Values, share: float) -> float:
    """The quantile `share` (0 to 1) of a histogram of durations, in seconds.

    `counts` holds the counts of the buckets of SECONDS and of +Inf. Interpolates linearly within a bucket, as Prometheus does:
    https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile
    """
    cumulative = np.cumsum(counts)
    rank = share * cumulative[-1]
    bucket = int(np.searchsorted(cumulative, rank))
    if bucket >= len(SECONDS):
        return SECONDS[-1]
    low = SECONDS[bucket - 1] if bucket else 0.0
    below = cumulative[bucket - 1] if bucket else 0.0
    return float(low + (SECONDS[bucket] - low) * (rank - below) / counts[bucket])


def _resources(window: Window, settings: Settings, served: Sequence[ModelConfig]) -> dict[str, float]:
    threads = plan_threads(settings)
    busy = {
        "event loop": window.rate(LOOP_BUSY) / settings.gateways,
        "decode threads": window.rate(DECODE_BUSY) / (threads.decode * settings.gateways),
    }
    for model in served:
        engines = model.replicas if model.placement == "dedicated" else settings.gateways
        rate = window.rate(BUSY, model=model.name, version=model.version)
        busy[f"engine of {model.name}"] = rate / engines
    core_seconds = window.after.cores_busy - window.before.cores_busy
    return busy | {"cores of the machine": core_seconds / window.seconds / machine_cores()}


def _bottleneck(resources: dict[str, float], models: list[dict[str, Any]]) -> str:
    """Names the busiest resource if it is saturated. A thread precedes the CPU cores, which it shares."""
    *threads, cores = resources.items()
    name, busy = max(threads, key=lambda item: item[1])
    if busy < SATURATED:
        name, busy = cores
    if busy >= SATURATED:
        return f"{name}: {busy:.0%} busy"
    if not models:
        return "none: no request was answered in this time"
    slowest = max(models, key=lambda model: model["total_ms"])
    stage = max(STAGES, key=lambda name: slowest["stages_ms"][name])
    return f"none: nothing is saturated; a request of {slowest['name']} spends most time in {stage}"
