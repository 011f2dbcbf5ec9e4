"""A node's counters as one document, for the live part of the page: sums that only grow, and what is so right now."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prometheus_client.samples import Sample

from serve.config.base import TENSOR_SUFFIX
from serve.telemetry.exposition import collect
from serve.telemetry.mmap_store import read_files


def live_stats(folder: Path, names: Iterable[str]) -> dict[str, Any]:
    """`names` are the models to tell of; joules are null without a source, chips those with one."""
    samples = [sample for family in collect(read_files(folder)) for sample in family.samples]
    return {
        "at": time.monotonic(),
        "in_flight": total(samples, "convoy_requests_in_flight"),
        "cores": total(samples, "convoy_node_cores"),
        "busy_core_seconds": total(samples, "convoy_node_busy_core_seconds_total"),
        "chips": [{**one.labels, "watts": one.value} for one in samples if one.name == "convoy_power_watts"],
        "models": [_model(samples, name) for name in names],
        "members": _members(samples),
        "stages": [
            {"model": one.labels["model"], "stage": one.labels["stage"], "images": one.value}
            for one in samples
            if one.name == "convoy_cascade_stage_images_total"
        ],
    }


def total(samples: Iterable[Sample], name: str, **labels: str) -> float:
    """Sum of the samples that have the labels."""
    return sum(one.value for one in samples if one.name == name and labels.items() <= one.labels.items())


def _model(samples: list[Sample], name: str) -> dict[str, Any]:
    """A model with both its forms: they share the engine."""
    counted = any(one.name == "convoy_energy_joules_total" for one in samples)

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
        "joules": total(samples, "convoy_energy_joules_total", model=name) if counted else None,
    }


def _members(samples: Iterable[Sample]) -> list[dict[str, Any]]:
    """How often each member of what is made of others was asked, by outcome."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for one in samples:
        if one.name == "convoy_member_requests_total":
            model, member = one.labels["model"], one.labels["member"]
            counts = found.setdefault((model, member), {"model": model, "member": member})
            counts[one.labels["outcome"]] = counts.get(one.labels["outcome"], 0) + one.value
    return list(found.values())
