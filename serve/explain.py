"""What a gateway decided and why: threads, placement, batch limits, latency curves, and what compositions cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from models.ensembles.views import View, count_looks
from serve.catalog import ComposedEndpoint, ModelEndpoint
from serve.config import Settings
from serve.dataplane import DataPlane
from serve.threads import plan_threads


@dataclass(frozen=True)
class MemberCost:
    """What one image costs at a member: rows, multiply-accumulates, and engine seconds by its latency curve."""

    stage: str
    model: str
    views: tuple[View, ...]
    rows: int
    macs: int
    engine_seconds: float


def costs_of(endpoint: ComposedEndpoint) -> list[MemberCost]:
    """The cost of an image that every member of every stage looks at, alone in its batches."""
    members = {member.name: member for member in endpoint.members}
    return [
        _cost(name, members[member.model], member.views) for name, stage in endpoint.stages for member in stage.members
    ]


def _cost(stage: str, member: ModelEndpoint, views: tuple[View, ...]) -> MemberCost:
    rows, limit = count_looks(views), member.batcher.limits.batch
    full, rest = divmod(rows, limit)
    curve = member.executor.curve
    seconds = full * curve.predict(limit) + (curve.predict(rest) if rest else 0.0)
    return MemberCost(stage, member.name, views, rows, rows * member.manifest.macs, seconds)


def explain(plane: DataPlane, settings: Settings) -> dict[str, Any]:
    """The plan of a running gateway as a JSON-ready document; times in milliseconds."""
    threads = plan_threads(settings)
    endpoints = plane.endpoints.by_name.values()
    return {
        "threads": {
            "cores": threads.cores,
            "decode": threads.decode,
            "local": threads.local,
            "dedicated": threads.dedicated,
        },
        "limits": settings.limits.model_dump(),
        "models": [
            _explain_model(endpoint)
            for endpoint in endpoints
            if isinstance(endpoint, ModelEndpoint) and endpoint.form == "image"
        ],
        "compositions": [
            _explain_composition(endpoint) for endpoint in endpoints if isinstance(endpoint, ComposedEndpoint)
        ],
    }


def _explain_model(endpoint: ModelEndpoint) -> dict[str, Any]:
    curve = endpoint.executor.curve
    limits = endpoint.batcher.limits
    return {
        "name": endpoint.name,
        "version": endpoint.version,
        "placement": endpoint.config.placement,
        "replicas": endpoint.config.replicas if endpoint.config.placement == "dedicated" else None,
        "batch_limit": limits.batch,
        "batch_limit_reason": f"largest batch that runs within target_ms = {endpoint.config.target_ms:g}",
        "batches_in_flight": limits.slots,
        "queue_limit": limits.queue,
        "waiting": endpoint.batcher.waiting_rows,
        "curve_ms": {
            str(size): round(seconds * 1000, 3) for size, seconds in zip(curve.sizes, curve.seconds, strict=True)
        },
    }


def _explain_composition(endpoint: ComposedEndpoint) -> dict[str, Any]:
    """`engine_ms_per_image` by stage is added up from the first stage on: what an image costs that gets so far."""
    costs = costs_of(endpoint)
    total = 0.0
    stages = []
    for name, ensemble in endpoint.stages:
        of_stage = [cost for cost in costs if cost.stage == name]
        total += sum(cost.engine_seconds for cost in of_stage)
        stages.append(
            {
                "stage": name,
                "combine": ensemble.combine,
                "min_members": ensemble.min_members,
                "members": [
                    {
                        "model": cost.model,
                        "views": list(cost.views),
                        "rows_per_image": cost.rows,
                        "macs_per_image": cost.macs,
                        "engine_ms_per_image": round(cost.engine_seconds * 1000, 3),
                    }
                    for cost in of_stage
                ],
                "engine_ms_per_image": round(total * 1000, 3),
            }
        )
    return {
        "name": endpoint.name,
        "version": endpoint.version,
        "kind": endpoint.kind,
        "deadline_ms": endpoint.config.deadline_ms,
        "images_per_request": endpoint.most_images,
        "decodes_per_image": 1,
        "stages": stages,
    }
