"""Prometheus HTTP service discovery: the metrics port of every node, from any gateway.

https://prometheus.io/docs/prometheus/latest/http_sd/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import ray

from serve.config.schema import Listen

ANY_ADDRESS = ("0.0.0.0", "::")
METER_RESOURCE = "convoy_meter"  # every node with a node agent has one


def scrape_targets(listen: Listen, nodes: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A target group for every living node with a node agent.

    On one machine no node has METER_RESOURCE; its single node is then the target.
    """
    living = [node for node in nodes if node["Alive"]]
    with_agent = [node for node in living if node["Resources"].get(METER_RESOURCE)] or living[:1]
    return [_group(listen, node) for node in sorted(with_agent, key=lambda node: str(node["NodeID"]))]


def _group(listen: Listen, node: Mapping[str, Any]) -> dict[str, Any]:
    host = node["NodeManagerAddress"] if listen.host in ANY_ADDRESS else listen.host
    address = f"[{host}]" if ":" in host else host
    labels = {"node": str(node["NodeID"])[:12], "__scheme__": listen.http_scheme}
    return {"targets": [f"{address}:{listen.metrics_port}"], "labels": labels}


def ray_nodes() -> list[dict[str, Any]]:
    """All nodes of the Ray cluster, by a call to the head node. Empty outside a Ray process."""
    return list(ray.nodes()) if ray.is_initialized() else []  # type: ignore[no-untyped-call]
