"""The manifests: sizes that match the configuration, network policies, draining, and minimal privileges."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import ray
import yaml

import convoy
from serve.deployments.applications import applications
from serve.deployments.gateway import DRAIN_SECONDS, LINGER_SECONDS
from serve.deployments.local import RAY_ENVIRONMENT
from tests.deploy.manifests import (
    OVERLAYS,
    PART_OF,
    Document,
    container,
    groups,
    manifests,
    of_kind,
    pod_templates,
    ports,
    ray_cluster,
    selects,
    settings,
)

GPU = "nvidia.com/gpu"
OPEN_TO_ALL = {8000, 8001}


def offered(overlay: str) -> list[dict[str, float]]:
    """The resources that each worker pod offers to Ray."""
    workers = [group for name, group in groups(overlay).items() if name != "head"]
    names = {"CPU": "num_cpus", GPU: "num_gpus"}
    return [
        {names.get(name, name): float(amount) for name, amount in group["resources"].items()}
        for group in workers
        for _ in range(group["replicas"])
    ]


def demands(overlay: str) -> Iterator[dict[str, float]]:
    """The resources that each replica demands from Ray, largest number of GPUs first."""
    found = []
    for application in applications(settings(overlay)):
        actor: dict[str, Any] = application.options["ray_actor_options"]
        wanted = {"num_cpus": actor["num_cpus"], "num_gpus": actor.get("num_gpus", 0)} | actor.get("resources", {})
        found += [wanted] * application.options.get("num_replicas", 1)
    return iter(sorted(found, key=lambda demand: -demand["num_gpus"]))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_replica_fits_on_a_pod(overlay: str) -> None:
    pods = offered(overlay)
    for wanted in demands(overlay):
        fitting = [pod for pod in pods if all(pod.get(name, 0) >= amount for name, amount in wanted.items())]
        assert fitting, f"no pod for {wanted}"
        for name, amount in wanted.items():
            fitting[0][name] = fitting[0].get(name, 0) - amount


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_gateways_and_hosts_run_on_their_own_pods(overlay: str) -> None:
    found = groups(overlay)
    assert found["head"]["resources"] == {"CPU": "0"}
    assert found["gateways"]["resources"]["CPU"] == "0"
    assert "convoy_gateway" not in found.get("hosts", {"resources": {}})["resources"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_sizes_match_the_configuration(overlay: str) -> None:
    declared, found = settings(overlay), groups(overlay)
    nodes = {"gateways": declared.cluster.gateway_nodes, "hosts": declared.cluster.host_nodes}
    for name, group in found.items():
        if name != "head":
            assert {group[key] for key in ("replicas", "minReplicas", "maxReplicas")} == {nodes[name]}
            assert container(group["template"])["resources"]["requests"]["cpu"] == str(declared.cores)
    assert found["gateways"]["resources"]["convoy_gateway"] == str(declared.gateways)
    assert ("hosts" in found) == bool(declared.cluster.host_nodes)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_ray_and_kubernetes_agree_on_the_gpus_of_a_pod(overlay: str) -> None:
    for group in groups(overlay).values():
        limits = container(group["template"])["resources"]["limits"]
        assert group["resources"].get(GPU) == limits.get(GPU)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_versions_and_environment_match_the_code(overlay: str) -> None:
    assert ray_cluster(overlay)["rayVersion"] == ray.__version__
    for group in groups(overlay).values():
        only = container(group["template"])
        assert only["image"].rpartition(":")[2] == convoy.__version__
        environment = {variable["name"]: variable["value"] for variable in only["env"]}
        assert environment.items() >= RAY_ENVIRONMENT.items()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_have_minimal_privileges(overlay: str) -> None:
    for name, template in pod_templates(overlay).items():
        spec, only = template["spec"], container(template)
        assert spec["securityContext"]["runAsNonRoot"], name
        assert spec["securityContext"]["runAsUser"] > 0, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert spec["automountServiceAccountToken"] is False, name
        assert only["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_ray_can_write_to_its_folders(overlay: str) -> None:
    for group in groups(overlay).values():
        spec, only = group["template"]["spec"], container(group["template"])
        scratch = {volume["name"] for volume in spec["volumes"] if "emptyDir" in volume}
        writable = {mount["mountPath"]: mount["name"] for mount in only["volumeMounts"] if not mount.get("readOnly")}
        assert set(writable) == {"/tmp", "/dev/shm"}
        assert set(writable.values()) <= scratch
        assert settings(overlay).runtime_dir.startswith("/tmp/")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_secrets_are_referenced_and_never_contained(overlay: str) -> None:
    assert not of_kind(overlay, "Secret")
    (gateway,) = container(groups(overlay)["gateways"]["template"])["envFrom"]
    assert gateway["secretRef"]["name"] == "convoy-postgres"
    for name, template in pod_templates(overlay).items():
        for variable in container(template)["env"]:
            assert "value" not in variable or not {"PASSWORD", "TOKEN", "SECRET"} & set(variable["name"].split("_")), (
                name
            )


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_services_select_only_gateways(overlay: str) -> None:
    listen, services = settings(overlay).listen, of_kind(overlay, "Service")
    reached = {}
    for name in ("convoy", "convoy-grpc"):
        selected = {
            kind: template
            for kind, template in pod_templates(overlay).items()
            if selects(services[name]["spec"]["selector"], template)
        }
        assert set(selected) == {"gateways"}
        (port,) = services[name]["spec"]["ports"]
        reached[name] = (port["port"], ports(selected["gateways"])[port["targetPort"]])
    assert reached == {"convoy": (listen.http_port,) * 2, "convoy-grpc": (listen.grpc_port,) * 2}
    assert services["convoy-grpc"]["spec"]["clusterIP"] == "None"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_routes_lead_to_the_services(overlay: str) -> None:
    services = of_kind(overlay, "Service")
    (gateway,) = of_kind(overlay, "Gateway").values()
    sections = {listener["name"] for listener in gateway["spec"]["listeners"]}
    for kind in ("HTTPRoute", "GRPCRoute"):
        (route,) = of_kind(overlay, kind).values()
        assert {parent["sectionName"] for parent in route["spec"]["parentRefs"]} <= sections
        for backend in route["spec"]["rules"][0]["backendRefs"]:
            assert backend["port"] in {port["port"] for port in services[backend["name"]]["spec"]["ports"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_readiness_probe_asks_the_gateway_itself(overlay: str) -> None:
    template = groups(overlay)["gateways"]["template"]
    probe = container(template)["readinessProbe"]["httpGet"]
    assert probe["path"] == "/-/healthz"
    assert ports(template)[probe["port"]] == settings(overlay).listen.http_port


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_terminating_pod_has_time_to_drain(overlay: str) -> None:
    template = groups(overlay)["gateways"]["template"]
    waits = container(template)["lifecycle"]["preStop"]["sleep"]["seconds"]
    probe = container(template)["readinessProbe"]
    assert waits > probe["periodSeconds"] * probe["failureThreshold"]
    assert template["spec"]["terminationGracePeriodSeconds"] > waits + LINGER_SECONDS + 2 * DRAIN_SECONDS
    (service,) = of_kind(overlay, "RayService").values()
    assert service["spec"]["rayClusterDeletionDelaySeconds"] >= waits


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_network_policies_close_the_ports_of_ray(overlay: str) -> None:
    policies = of_kind(overlay, "NetworkPolicy").values()
    for name, template in pod_templates(overlay).items():
        rules = []
        restricted = False
        for policy in policies:
            if selects(policy["spec"]["podSelector"]["matchLabels"], template):
                restricted = restricted or "Ingress" in policy["spec"]["policyTypes"]
                rules += policy["spec"].get("ingress", [])
        assert restricted, name
        assert open_ports(rules) == (OPEN_TO_ALL if name == "gateways" else set()), name


def open_ports(rules: list[Document]) -> set[int]:
    """Ports that are open to every client."""
    assert all(rule.get("from") or rule.get("ports") for rule in rules), "a rule that admits everything"
    return {port["port"] for rule in rules if not rule.get("from") for port in rule["ports"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_prometheus_finds_and_may_scrape_the_node_agent_of_every_worker(overlay: str) -> None:
    (monitor,) = of_kind(overlay, "PodMonitor").values()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    workers = [group["template"] for name, group in groups(overlay).items() if name != "head"]
    for template in workers:
        assert selects(monitor["spec"]["selector"]["matchLabels"], template)
        assert ports(template)[endpoint["port"]] == settings(overlay).listen.metrics_port
    (rule,) = of_kind(overlay, "NetworkPolicy")["metrics"]["spec"]["ingress"]
    assert [port["port"] for port in rule["ports"]] == [settings(overlay).listen.metrics_port]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_only_one_pod_of_a_group_may_be_evicted_at_a_time(overlay: str) -> None:
    budgets = of_kind(overlay, "PodDisruptionBudget")
    workers = {name: group for name, group in groups(overlay).items() if name != "head"}
    assert set(budgets) == set(workers)
    for name, group in workers.items():
        # Not maxUnavailable: Kubernetes supports it only for controllers with a scale subresource.
        assert budgets[name]["spec"]["minAvailable"] == group["replicas"] - 1
        assert selects(budgets[name]["spec"]["selector"]["matchLabels"], group["template"])
        assert group["replicas"] > 1


def test_high_availability_keeps_the_state_of_the_head_in_redis() -> None:
    options = ray_cluster("ha")["gcsFaultToleranceOptions"]
    address, _, port = options["redisAddress"].partition(":")
    redis = of_kind("ha", "Service")[address]
    assert redis["spec"]["ports"][0]["port"] == int(port)
    (stateful,) = of_kind("ha", "StatefulSet").values()
    assert selects(redis["spec"]["selector"], stateful["spec"]["template"])
    (password,) = container(stateful["spec"]["template"])["env"]
    assert password["valueFrom"] == options["redisPassword"]["valueFrom"]


def test_high_availability_spreads_its_pods_and_doubles_its_hosts() -> None:
    for name, group in groups("ha").items():
        if name != "head":
            (spread,) = group["template"]["spec"]["topologySpreadConstraints"]
            assert spread["whenUnsatisfiable"] == "DoNotSchedule"
            assert selects(spread["labelSelector"]["matchLabels"], group["template"])
    assert all(model.replicas > 1 for model in settings("ha").models)


def test_models_are_dedicated_unless_each_gateway_has_a_gpu() -> None:
    placements = {overlay: {model.placement for model in settings(overlay).models} for overlay in OVERLAYS}
    assert placements == {"cpu": {"dedicated"}, "gpu": {"dedicated"}, "gpu-local": {"local"}, "ha": {"dedicated"}}
    assert settings("gpu-local").cluster.gateway_gpus == 1
    assert all(0 < model.gpus < 1 for model in settings("gpu").models)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_is_in_the_namespace_and_has_the_part_of_label(overlay: str) -> None:
    for document in manifests(overlay):
        if document["kind"] != "Namespace":
            assert document["metadata"]["namespace"] == "convoy"
        assert document["metadata"]["labels"][PART_OF] == "convoy", json.dumps(document["metadata"])


def test_the_namespace_enforces_the_restricted_pod_security_standard() -> None:
    document = yaml.safe_dump(of_kind("cpu", "Namespace")["convoy"])
    assert "pod-security.kubernetes.io/enforce: restricted" in document
