"""The plan of a gateway with its reasons: threads, placement, batch limits, latency curves, cost of compositions."""

from __future__ import annotations

from typing import Any

from serve.batching.latency_curve import LatencyCurve, in_milliseconds
from serve.config.schema import Settings
from serve.config.thread_plan import plan_threads
from serve.ensembles.cost_report import Known, plan_document
from serve.gateway.dataplane import DataPlane
from serve.gateway.endpoints import ComposedEndpoint, ModelEndpoint


def explain(plane: DataPlane, settings: Settings) -> dict[str, Any]:
    """The plan of a running gateway as a JSON-ready document; times in milliseconds."""
    models = plane.endpoints.models
    threads = plan_threads(settings.model_copy(update={"models": tuple(model.config for model in models)}))
    return {
        "threads": {
            "cores": threads.cores,
            "decode": threads.decode,
            "local": threads.local,
            "dedicated": threads.dedicated,
        },
        "limits": settings.limits.model_dump(),
        "models_memory_mb": settings.models_memory_mb,
        "models": [_explain_model(endpoint) for endpoint in models],
        "compositions": [_explain_composition(endpoint) for endpoint in plane.endpoints.compositions],
    }


def _explain_model(endpoint: ModelEndpoint) -> dict[str, Any]:
    limits = endpoint.batcher.limits
    facts = endpoint.executor.facts
    return {
        "name": endpoint.name,
        "version": endpoint.version,
        "placement": endpoint.config.placement,
        "engine": facts.label,
        "engine_status": facts.status,
        "engine_problem": facts.problem,
        "replicas": endpoint.config.replicas if endpoint.config.placement == "dedicated" else None,
        "batch_limit": limits.batch,
        "batch_limit_reason": f"largest batch that runs within target_ms = {endpoint.config.target_ms:g}",
        "batches_in_flight": endpoint.executor.slots.count,
        "queue_limit": limits.queue,
        "waiting": endpoint.batcher.waiting_rows,
        "curve_ms": in_milliseconds(curve_of(endpoint)),
    } | _explain_memory(endpoint)


def _explain_memory(endpoint: ModelEndpoint) -> dict[str, Any]:
    memory = endpoint.executor.memory
    if memory is None:
        return {}
    return {"in_memory": memory.loaded, "memory_mb": round(memory.size / 2**20, 1), "problem": memory.problem}


def curve_of(endpoint: ModelEndpoint) -> LatencyCurve | None:
    """The latency curve; None before it was measured."""
    return endpoint.executor.curve if endpoint.executor.measured else None


def _explain_composition(endpoint: ComposedEndpoint) -> dict[str, Any]:
    known = {
        member.name: Known(member.manifest, curve_of(member), member.batcher.limits.batch)
        for member in endpoint.members
    }
    return plan_document(endpoint.config, endpoint.stages, known) | {"images_per_request": endpoint.most_images}
