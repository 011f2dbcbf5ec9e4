"""The applications for `serve.run_many` and for the config schema of Ray Serve, and the changes that restart a replica."""

from __future__ import annotations

import importlib
from typing import Any

from serve.config.loading import parse_settings
from serve.config.schema import Settings
from serve.deployments.applications import ApplicationSpec, applications

CLUSTER: dict[str, Any] = {
    "cores": 4,
    "gateways": 2,
    "runtime_dir": "/tmp/node",
    "cluster": {"gateway_nodes": 3, "gateway_gpus": 1, "host_nodes": 2},
    "models": [
        {"name": "lenet5-mnist"},
        {"name": "resnet20-cifar10", "placement": "dedicated", "replicas": 2, "gpus": 0.25},
        {"name": "squeezenet1_1-imagenet", "placement": "dedicated", "threads": 3},
    ],
}


def by_name(document: dict[str, Any]) -> dict[str, ApplicationSpec]:
    return {spec.name: spec for spec in applications(parse_settings(document))}


def test_one_application_for_every_dedicated_model() -> None:
    names = [spec.name for spec in applications(Settings())]
    assert names == ["meter", "steward", "host-squeezenet1_1-imagenet", "gateway"]
    assert set(by_name(CLUSTER)) == {
        "meter",
        "steward",
        "host-resnet20-cifar10",
        "host-squeezenet1_1-imagenet",
        "gateway",
    }


def test_applications_have_the_documented_names_and_builders() -> None:
    ledger = CLUSTER | {"ledger": {"url": "postgresql+psycopg://database/convoy"}}
    assert {spec.name: spec.schema()["import_path"].partition(":")[2] for spec in by_name(ledger).values()} == {
        "meter": "node_agent",
        "steward": "coordinator",
        "referee": "experiment_controller",
        "host-resnet20-cifar10": "host",
        "host-squeezenet1_1-imagenet": "host",
        "gateway": "gateway",
    }


def test_the_import_path_binds_the_same_deployment() -> None:
    for spec in by_name(CLUSTER).values():
        module, _, name = spec.schema()["import_path"].partition(":")
        built = getattr(importlib.import_module(module), name)(spec.arguments)
        assert isinstance(built, type(spec.run_target().target))
        assert getattr(importlib.import_module(module), spec.deployment.func_or_class.__name__) is spec.deployment


def test_applications_on_one_machine_request_no_resources() -> None:
    assert not any("ray_actor_options" in spec.options for spec in applications(Settings()))


def test_a_cluster_has_a_node_agent_on_every_node_and_gateways_only_on_gateway_nodes() -> None:
    found = by_name(CLUSTER)
    assert found["meter"].options["num_replicas"] == 3 + 2
    assert found["meter"].options["ray_actor_options"] == {"num_cpus": 0, "resources": {"convoy_meter": 1}}
    assert found["gateway"].options["num_replicas"] == 2 * 3
    gateway_actor = {"num_cpus": 0, "num_gpus": 1, "resources": {"convoy_gateway": 1}}
    assert found["gateway"].options["ray_actor_options"] == gateway_actor


def test_hosts_request_the_planned_threads_and_a_share_of_a_gpu() -> None:
    found = by_name(CLUSTER)
    # Three hosts on two nodes: at most two hosts share the four cores of a node.
    assert found["host-resnet20-cifar10"].options["ray_actor_options"] == {"num_cpus": 2, "num_gpus": 0.25}
    assert found["host-squeezenet1_1-imagenet"].options["ray_actor_options"] == {"num_cpus": 3, "num_gpus": 0}


def test_catalog_and_size_change_without_new_arguments() -> None:
    changed = CLUSTER | {
        "cluster": {"gateway_nodes": 4, "gateway_gpus": 1, "host_nodes": 3},
        "models": [CLUSTER["models"][0] | {"target_ms": 10}, CLUSTER["models"][1] | {"replicas": 5}],
    }
    before, after = by_name(CLUSTER), by_name(changed)
    for name in ("meter", "steward", "gateway", "host-resnet20-cifar10"):
        assert before[name].arguments == after[name].arguments, name
    assert before["gateway"].options["user_config"] != after["gateway"].options["user_config"]
