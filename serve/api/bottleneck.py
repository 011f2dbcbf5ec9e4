"""Where the time of requests goes and what limits them: two readings of the node's metric pages, compared.

The stages of a request add up to its time. A stage that is long is not what limits the rest (a queue is long because
something else is busy), so the bottleneck is told from how busy each resource was.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from serve.config.base import TENSOR_SUFFIX
from serve.config.schema import ModelConfig, Settings
from serve.config.thread_plan import plan_threads
from serve.telemetry.definitions import BUSY, DECODE_BUSY, LOOP_BUSY, SAMPLES, SECONDS, STAGE, TOTAL, Definition
from serve.telemetry.mmap_store import Labels, Values, read_files
from serve.telemetry.proc import busy_core_seconds, machine_cores
from serve.telemetry.request_timings import STAGES

SATURATED = 0.85
NO_VALUES: Values = np.zeros(1)

Key = tuple[str, frozenset[tuple[str, str]]]


@dataclass(frozen=True)
class Reading:
    """Totals of every series of the node at one time, and the seconds its cores were busy."""

    at: float
    cores_busy: float
    totals: dict[Key, Values]

    def values(self, definition: Definition, labels: Labels) -> Values:
        return self.totals.get((definition.name, frozenset(labels.items())), np.zeros(definition.slots))


def read(folder: Path) -> Reading:
    """What the node's processes have counted so far. Blocks for a millisecond or so."""
    totals: dict[Key, Values] = defaultdict(lambda: NO_VALUES)
    for series in read_files(folder):
        key = (series.metric, frozenset(series.labels))
        totals[key] = totals[key] + series.values
    return Reading(time.monotonic(), busy_core_seconds(), dict(totals))


@dataclass(frozen=True)
class Window:
    """What happened between two readings."""

    before: Reading
    after: Reading

    @property
    def seconds(self) -> float:
        return self.after.at - self.before.at

    def grown(self, definition: Definition, **labels: str) -> Values:
        return self.after.values(definition, labels) - self.before.values(definition, labels)

    def rate(self, definition: Definition, **labels: str) -> float:
        return float(self.grown(definition, **labels)[-1]) / self.seconds


def profile(window: Window, settings: Settings, served: Sequence[ModelConfig]) -> dict[str, Any]:
    """The profile of the models served as a JSON-ready document; times in milliseconds, `busy` from 0 to 1."""
    resources = _resources(window, settings, served)
    models = [one for model in served for one in _models(window, model.name, model.version)]
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
    total = window.grown(TOTAL, **labels)
    count = float(total[:-1].sum())
    stages = {stage: float(window.grown(STAGE, stage=stage, **labels)[-1]) / count * 1000 for stage in STAGES}
    return {
        "name": labels["model"],
        "requests_per_second": round(count / window.seconds, 1),
        "images_per_second": round(window.rate(SAMPLES, **labels), 1),
        "stages_ms": {stage: round(ms, 4) for stage, ms in stages.items()},
        "total_ms": round(float(total[-1]) / count * 1000, 4),
        "p50_ms": round(quantile(total[:-1], 0.5) * 1000, 3),
        "p99_ms": round(quantile(total[:-1], 0.99) * 1000, 3),
    }


def quantile(counts: Values, share: float) -> float:
    """Seconds below which a share of a histogram of times lies, interpolated within its bucket as Prometheus does."""
    running = np.cumsum(counts)
    wanted = share * running[-1]
    bucket = int(np.searchsorted(running, wanted))
    if bucket >= len(SECONDS):
        return SECONDS[-1]
    low = SECONDS[bucket - 1] if bucket else 0.0
    below = running[bucket - 1] if bucket else 0.0
    return float(low + (SECONDS[bucket] - low) * (wanted - below) / counts[bucket])


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
    spent = window.after.cores_busy - window.before.cores_busy
    return busy | {"cores of the machine": spent / window.seconds / machine_cores()}


def _bottleneck(resources: dict[str, float], models: list[dict[str, Any]]) -> str:
    """The busiest resource, when one is saturated: a thread rather than the cores it shares with others."""
    *own, cores = resources.items()
    name, busy = max(own, key=lambda item: item[1])
    if busy < SATURATED:
        name, busy = cores
    if busy >= SATURATED:
        return f"{name}: {busy:.0%} busy"
    if not models:
        return "none: no request was answered in this time"
    slowest = max(models, key=lambda model: model["total_ms"])
    stage = max(STAGES, key=lambda one: slowest["stages_ms"][one])
    return f"none: nothing is saturated; a request of {slowest['name']} spends most time in {stage}"
