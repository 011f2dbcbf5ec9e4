"""Scrape targets of the nodes, for the HTTP service discovery of Prometheus."""

from __future__ import annotations

from typing import Any

from serve.cluster.service_discovery import METER_RESOURCE, scrape_targets
from serve.config.schema import Listen, Tls


def node(number: int, address: str, *, alive: bool = True, meter: bool = True) -> dict[str, Any]:
    resources = {METER_RESOURCE: 1.0} if meter else {}
    return {"NodeID": f"{number:056d}", "Alive": alive, "NodeManagerAddress": address, "Resources": resources}


def test_every_living_node_with_a_node_agent_is_a_target() -> None:
    nodes = [
        node(2, "10.0.0.2"),
        node(1, "fd00::1"),
        node(3, "10.0.0.3", alive=False),
        node(4, "10.0.0.4", meter=False),
    ]
    groups = scrape_targets(Listen(host="0.0.0.0", metrics_port=9002), nodes)
    assert [group["targets"] for group in groups] == [["[fd00::1]:9002"], ["10.0.0.2:9002"]]
    assert {group["labels"]["__scheme__"] for group in groups} == {"http"}


def test_one_machine_is_a_target_at_its_own_address() -> None:
    (group,) = scrape_targets(Listen(tls=Tls(certificate="c", key="k")), [node(1, "10.0.0.1", meter=False)])
    assert group["targets"] == ["127.0.0.1:8002"]
    assert group["labels"]["__scheme__"] == "https"


def test_without_ray_there_are_no_nodes() -> None:
    assert scrape_targets(Listen(), []) == []
