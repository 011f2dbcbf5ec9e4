"""The thread plan: available cores, and their division among gateways, hosts and nodes."""

from __future__ import annotations

from pathlib import Path

import pytest

from serve.config.loading import parse_settings
from serve.config.thread_plan import ThreadPlan, available_cores, engine_threads, plan_threads


@pytest.mark.parametrize(
    ("text", "cores"), [("max 100000", None), ("50000 100000", 1), ("100000 100000", 1), ("nonsense", None)]
)
def test_the_cgroup_limits_the_available_cores(tmp_path: Path, text: str, cores: int | None) -> None:
    path = tmp_path / "cpu.max"
    path.write_text(text)
    unlimited = available_cores(tmp_path / "absent")
    assert available_cores(path) == (unlimited if cores is None else cores)


def test_cores_are_divided_among_gateways_and_hosts() -> None:
    settings = parse_settings(
        {"gateways": 2, "models": [{"name": "a", "placement": "dedicated", "replicas": 4}, {"name": "b"}]}
    )
    assert plan_threads(settings, cores=8) == ThreadPlan(cores=8, decode=4, local=4, dedicated=2)
    assert plan_threads(settings, cores=1) == ThreadPlan(cores=1, decode=1, local=1, dedicated=1)


def test_the_hosts_of_a_cluster_node_share_its_cores() -> None:
    settings = parse_settings(
        {
            "cores": 6,
            "runtime_dir": "/run/convoy",
            "cluster": {"gateway_nodes": 1, "host_nodes": 2},
            "models": [{"name": "a", "placement": "dedicated", "replicas": 3}],
        }
    )
    assert plan_threads(settings) == ThreadPlan(cores=6, decode=6, local=6, dedicated=3)


@pytest.mark.parametrize(
    ("configured", "macs", "threads"), [({}, 300_000, 1), ({}, 40_000_000, 4), ({}, 0, 4), ({"threads": 2}, 300_000, 2)]
)
def test_a_small_network_runs_on_one_thread_unless_configured(
    configured: dict[str, int], macs: int, threads: int
) -> None:
    (model,) = parse_settings({"models": [{"name": "a", **configured}]}).models
    assert engine_threads(model, macs, planned=4) == threads
