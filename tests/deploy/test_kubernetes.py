"""What the manifests promise: sizes that fit the configuration, fences, drains, and no right that is not needed."""

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
    """What every worker tells Ray that it has, one entry per pod."""
    workers = [group for name, group in groups(overlay).items() if name != "head"]
    names = {"CPU": "num_cpus", GPU: "num_gpus"}
    return [
        {names.get(name, name): float(amount) for name, amount in group["resources"].items()}
        for group in workers
        for _ in range(group["replicas"])
    ]


def demands(overlay: str) -> Iterator[dict[str, float]]:
    """What every replica asks Ray for, largest first."""
    found = []
    for one in applications(settings(overlay)):
        actor: dict[str, Any] = one.options["ray_actor_options"]
        wanted = {"num_cpus": actor["num_cpus"], "num_gpus": actor.get("num_gpus", 0)} | actor.get("resources", {})
        found += [wanted] * one.options.get("num_replicas", 1)
    return iter(sorted(found, key=lambda one: -one["num_gpus"]))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_replica_finds_a_pod(overlay: str) -> None:
    pods = offered(overlay)
    for wanted in demands(overlay):
        fitting = [pod for pod in pods if all(pod.get(name, 0) >= amount for name, amount in wanted.items())]
        assert fitting, f"no pod for {wanted}"
        for name, amount in wanted.items():
            fitting[0][name] = fitting[0].get(name, 0) - amount


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_gateways_and_hosts_go_to_pods_of_their_kind(overlay: str) -> None:
    found = groups(overlay)
    assert found["head"]["resources"] == {"CPU": "0"}
    assert found["gateways"]["resources"]["CPU"] == "0"
    assert "convoy_gateway" not in found.get("hosts", {"resources": {}})["resources"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_sizes_are_those_of_the_configuration(overlay: str) -> None:
    declared, found = settings(overlay), groups(overlay)
    nodes = {"gateways": declared.cluster.gateway_nodes, "hosts": declared.cluster.host_nodes}
    for name, group in found.items():
        if name != "head":
            assert {group[key] for key in ("replicas", "minReplicas", "maxReplicas")} == {nodes[name]}
            assert container(group["template"])["resources"]["requests"]["cpu"] == str(declared.cores)
    assert found["gateways"]["resources"]["convoy_gateway"] == str(declared.gateways)
    assert ("hosts" in found) == bool(declared.cluster.host_nodes)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_ray_knows_of_a_pods_gpus_what_kubernetes_gives_it(overlay: str) -> None:
    for group in groups(overlay).values():
        limits = container(group["template"])["resources"]["limits"]
        assert group["resources"].get(GPU) == limits.get(GPU)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_versions_and_environment_are_those_of_the_code(overlay: str) -> None:
    assert ray_cluster(overlay)["rayVersion"] == ray.__version__
    for group in groups(overlay).values():
        only = container(group["template"])
        assert only["image"].rpartition(":")[2] == convoy.__version__
        environment = {one["name"]: one["value"] for one in only["env"]}
        assert environment.items() >= RAY_ENVIRONMENT.items()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_pod_has_a_right_that_it_does_not_need(overlay: str) -> None:
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
def test_what_ray_writes_has_a_place(overlay: str) -> None:
    for group in groups(overlay).values():
        spec, only = group["template"]["spec"], container(group["template"])
        scratch = {one["name"] for one in spec["volumes"] if "emptyDir" in one}
        writable = {one["mountPath"]: one["name"] for one in only["volumeMounts"] if not one.get("readOnly")}
        assert set(writable) == {"/tmp", "/dev/shm"}
        assert set(writable.values()) <= scratch
        assert settings(overlay).runtime_dir.startswith("/tmp/")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_secrets_are_named_and_never_there(overlay: str) -> None:
    assert not of_kind(overlay, "Secret")
    (gateway,) = container(groups(overlay)["gateways"]["template"])["envFrom"]
    assert gateway["secretRef"]["name"] == "convoy-postgres"
    for name, template in pod_templates(overlay).items():
        for one in container(template)["env"]:
            assert "value" not in one or not {"PASSWORD", "TOKEN", "SECRET"} & set(one["name"].split("_")), name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_services_reach_the_gateways_alone(overlay: str) -> None:
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
def test_routes_end_at_the_services(overlay: str) -> None:
    services = of_kind(overlay, "Service")
    (listening,) = of_kind(overlay, "Gateway").values()
    sections = {one["name"] for one in listening["spec"]["listeners"]}
    for kind in ("HTTPRoute", "GRPCRoute"):
        (route,) = of_kind(overlay, kind).values()
        assert {one["sectionName"] for one in route["spec"]["parentRefs"]} <= sections
        for backend in route["spec"]["rules"][0]["backendRefs"]:
            assert backend["port"] in {one["port"] for one in services[backend["name"]]["spec"]["ports"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_gateway_says_itself_whether_it_is_ready(overlay: str) -> None:
    template = groups(overlay)["gateways"]["template"]
    probe = container(template)["readinessProbe"]["httpGet"]
    assert probe["path"] == "/-/healthz"
    assert ports(template)[probe["port"]] == settings(overlay).listen.http_port


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_pod_that_goes_has_time_to_drain(overlay: str) -> None:
    template = groups(overlay)["gateways"]["template"]
    waits = container(template)["lifecycle"]["preStop"]["sleep"]["seconds"]
    probe = container(template)["readinessProbe"]
    assert waits > probe["periodSeconds"] * probe["failureThreshold"]
    assert template["spec"]["terminationGracePeriodSeconds"] > waits + LINGER_SECONDS + 2 * DRAIN_SECONDS
    (service,) = of_kind(overlay, "RayService").values()
    assert service["spec"]["rayClusterDeletionDelaySeconds"] >= waits


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_rays_ports_are_fenced(overlay: str) -> None:
    policies = of_kind(overlay, "NetworkPolicy").values()
    for name, template in pod_templates(overlay).items():
        rules = []
        fenced = False
        for one in policies:
            if selects(one["spec"]["podSelector"]["matchLabels"], template):
                fenced = fenced or "Ingress" in one["spec"]["policyTypes"]
                rules += one["spec"].get("ingress", [])
        assert fenced, name
        assert open_ports(rules) == (OPEN_TO_ALL if name == "gateways" else set()), name


def open_ports(rules: list[Document]) -> set[int]:
    """Ports that anybody may reach."""
    assert all(rule.get("from") or rule.get("ports") for rule in rules), "a rule that lets everything in"
    return {port["port"] for rule in rules if not rule.get("from") for port in rule["ports"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_prometheus_finds_a_meter_in_every_worker_and_may_ask_it(overlay: str) -> None:
    (monitor,) = of_kind(overlay, "PodMonitor").values()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    workers = [group["template"] for name, group in groups(overlay).items() if name != "head"]
    for template in workers:
        assert selects(monitor["spec"]["selector"]["matchLabels"], template)
        assert ports(template)[endpoint["port"]] == settings(overlay).listen.metrics_port
    (rule,) = of_kind(overlay, "NetworkPolicy")["metrics"]["spec"]["ingress"]
    assert [one["port"] for one in rule["ports"]] == [settings(overlay).listen.metrics_port]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_one_pod_of_a_kind_may_be_taken_at_a_time(overlay: str) -> None:
    budgets = of_kind(overlay, "PodDisruptionBudget")
    workers = {name: group for name, group in groups(overlay).items() if name != "head"}
    assert set(budgets) == set(workers)
    for name, group in workers.items():
        # Not maxUnavailable, which Kubernetes only knows of controllers that it can scale.
        assert budgets[name]["spec"]["minAvailable"] == group["replicas"] - 1
        assert selects(budgets[name]["spec"]["selector"]["matchLabels"], group["template"])
        assert group["replicas"] > 1


def test_high_availability_keeps_the_heads_state_elsewhere() -> None:
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


def test_models_are_dedicated_but_where_each_gateway_has_a_gpu() -> None:
    placements = {overlay: {model.placement for model in settings(overlay).models} for overlay in OVERLAYS}
    assert placements == {"cpu": {"dedicated"}, "gpu": {"dedicated"}, "gpu-local": {"local"}, "ha": {"dedicated"}}
    assert settings("gpu-local").cluster.gateway_gpus == 1
    assert all(0 < model.gpus < 1 for model in settings("gpu").models)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_everything_is_in_one_namespace_and_says_what_it_is_part_of(overlay: str) -> None:
    for one in manifests(overlay):
        if one["kind"] != "Namespace":
            assert one["metadata"]["namespace"] == "convoy"
        assert one["metadata"]["labels"][PART_OF] == "convoy", json.dumps(one["metadata"])


def test_the_namespace_holds_pods_to_the_strictest_standard() -> None:
    document = yaml.safe_dump(of_kind("cpu", "Namespace")["convoy"])
    assert "pod-security.kubernetes.io/enforce: restricted" in document
