"""A node's counters and gauges as one JSON document, for the live part of the web page."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prometheus_client.samples import Sample

from serve.config.base import TENSOR_SUFFIX
from serve.telemetry import exposition
from serve.telemetry.mmap_store import read_files


def live_stats(folder: Path, names: Iterable[str]) -> dict[str, Any]:
    """The document for the models `names`. `joules` is null without an energy source; `chips` are those with a source."""
    totals = exposition.total(read_files(folder))
    samples = [sample for family in exposition.collect(totals) for sample in family.samples]
    return {
        "at": time.monotonic(),
        "in_flight": total(samples, "convoy_requests_in_flight"),
        "cores": total(samples, "convoy_node_cores"),
        "busy_core_seconds": total(samples, "convoy_node_busy_core_seconds_total"),
        "chips": [
            {**sample.labels, "watts": sample.value} for sample in samples if sample.name == "convoy_power_watts"
        ],
        "models": [_model(samples, name) for name in names],
        "members": _members(samples),
        "stages": [
            {"model": sample.labels["model"], "stage": sample.labels["stage"], "images": sample.value}
            for sample in samples
            if sample.name == "convoy_cascade_stage_images_total"
        ],
    }


def total(samples: Iterable[Sample], name: str, **labels: str) -> float:
    """Sum of the samples that have the labels."""
    return sum(sample.value for sample in samples if sample.name == name and labels.items() <= sample.labels.items())


def _model(samples: list[Sample], name: str) -> dict[str, Any]:
    """A model's numbers over both its forms (image and tensor), which share the engine."""
    has_source = any(sample.name == "convoy_energy_joules_total" for sample in samples)

    def both(metric: str) -> float:
        return sum(total(samples, metric, model=form) for form in (name, name + TENSOR_SUFFIX))

    return {
        "name": name,
        "images": both("convoy_samples_total"),
        "refused": both("convoy_shed_total"),
        "waiting": both("convoy_queue_rows"),
        "answered": both("convoy_request_seconds_count"),
        "request_seconds": both("convoy_request_seconds_sum"),
        "busy_seconds": total(samples, "convoy_busy_seconds_total", model=name),
        "engines": total(samples, "convoy_engine_replicas", model=name),
        "joules": total(samples, "convoy_energy_joules_total", model=name) if has_source else None,
    }


def _members(samples: Iterable[Sample]) -> list[dict[str, Any]]:
    """Requests to each member of each ensemble or cascade, by outcome."""
    members: dict[tuple[str, str], dict[str, Any]] = {}
    for sample in samples:
        if sample.name == "convoy_member_requests_total":
            model, member, outcome = (sample.labels[label] for label in ("model", "member", "outcome"))
            counts = members.setdefault((model, member), {"model": model, "member": member})
            counts[outcome] = counts.get(outcome, 0) + sample.value
    return list(members.values())
