"""The composition root: builds the Ray Serve applications of the settings, for `convoy up` and for Serve's config schema.

The names of applications, deployments and resources (`meter`, `steward`, `referee`, `convoy_meter`, `convoy_steward`) differ from
those of the classes, since users type them in Ray's commands and cluster manifests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ray.serve import Application, RunTarget

from serve.cluster.rpc import REFEREE_APP, STEWARD_APP
from serve.cluster.service_discovery import METER_RESOURCE
from serve.config.schema import Catalog, ModelConfig, Settings
from serve.config.thread_plan import plan_threads
from serve.deployments import autoscaling
from serve.deployments.coordinator import Coordinator
from serve.deployments.experiment_controller import ExperimentControllerDeployment
from serve.deployments.gateway import Gateway
from serve.deployments.host import Host
from serve.deployments.node_agent import NodeAgent
from serve.executors.host import APP_PREFIX

METER_APP = "meter"
GATEWAY_APP = "gateway"
PROXY_LOCATION = "Disabled"  # the gateway owns its listeners
LOGGING: dict[str, Any] = {"log_level": "WARNING", "enable_access_log": False}
# Custom resources place replicas in a cluster. Every node declares METER_RESOURCE once. Nodes for gateways also declare
# GATEWAY_RESOURCE, and STEWARD_RESOURCE; the coordinator and the experiment controller take half of it each.
GATEWAY_RESOURCE = "convoy_gateway"
STEWARD_RESOURCE = "convoy_steward"


@dataclass(frozen=True)
class ApplicationSpec:
    """An application of one deployment: its name, its builder, the arguments bound to it, and its options.

    Serve replaces the replicas when an argument changes, and applies an option in place. So everything that may change without
    a restart is an option.
    """

    name: str
    deployment: Any
    builder: Callable[[dict[str, Any]], Application]  # Serve imports it by name
    arguments: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)

    def run_target(self) -> RunTarget:
        """For `ray.serve.run_many`."""
        bound = self.deployment.options(**self.options).bind(**self.arguments)
        return RunTarget(bound, name=self.name, route_prefix=None)

    def schema(self) -> dict[str, Any]:
        """For the `applications` of Serve's config schema."""
        return {
            "name": self.name,
            "route_prefix": None,
            "import_path": f"{__name__}:{self.builder.__name__}",
            "args": self.arguments,
            "deployments": [{"name": self.deployment.name, **self.options}],
        }


def node_agent(arguments: dict[str, Any]) -> Application:
    """Builds the application `meter` of a config document."""
    return _bind(NodeAgent, arguments)


def coordinator(arguments: dict[str, Any]) -> Application:
    """Builds the application `steward` of a config document."""
    return _bind(Coordinator, arguments)


def experiment_controller(arguments: dict[str, Any]) -> Application:
    """Builds the application `referee` of a config document."""
    return _bind(ExperimentControllerDeployment, arguments)


def host(arguments: dict[str, Any]) -> Application:
    """Builds the application of a dedicated model's host of a config document."""
    return _bind(Host, arguments)


def gateway(arguments: dict[str, Any]) -> Application:
    """Builds the application `gateway` of a config document."""
    return _bind(Gateway, arguments)


def _bind(deployment: Any, arguments: dict[str, Any]) -> Application:
    application: Application = deployment.bind(**arguments)
    return application


def applications(settings: Settings) -> Iterator[ApplicationSpec]:
    """Node agent, coordinator, experiment controller (with a ledger), a host per dedicated model, and gateway; in this order."""
    yield _node_agent(settings)
    yield _coordinator(settings)
    if settings.ledger_url:
        yield _experiment_controller(settings)
    for model in settings.models:
        if model.placement == "dedicated":
            yield _host(settings, model)
    yield _gateway(settings)


def _node_agent(settings: Settings) -> ApplicationSpec:
    cluster = settings.cluster
    arguments: dict[str, Any] = {
        "listen": settings.listen.model_dump(mode="json"),
        "power": settings.power.model_dump(mode="json"),
        "folder_name": str(settings.node_dir),
    }
    if metrics_keys := [key.model_dump(mode="json") for key in settings.keys if key.metrics]:
        arguments["keys"] = metrics_keys
    if not cluster.gateway_nodes:
        return ApplicationSpec(METER_APP, NodeAgent, node_agent, arguments)
    options = {
        "num_replicas": cluster.gateway_nodes + cluster.host_nodes,
        "ray_actor_options": {"num_cpus": 0, "resources": {METER_RESOURCE: 1}},
    }
    return ApplicationSpec(METER_APP, NodeAgent, node_agent, arguments, options)


def _coordinator(settings: Settings) -> ApplicationSpec:
    return ApplicationSpec(STEWARD_APP, Coordinator, coordinator, {}, _beside_gateways(settings))


def _experiment_controller(settings: Settings) -> ApplicationSpec:
    arguments = {"ledger": _ledger(settings), "folder": str(settings.node_dir)}
    options = _beside_gateways(settings)
    return ApplicationSpec(REFEREE_APP, ExperimentControllerDeployment, experiment_controller, arguments, options)


def _beside_gateways(settings: Settings) -> dict[str, Any]:
    if not settings.cluster.gateway_nodes:
        return {}
    return {"ray_actor_options": {"num_cpus": 0, "resources": {STEWARD_RESOURCE: 0.5}}}


def _ledger(settings: Settings) -> dict[str, Any]:
    return settings.ledger.model_copy(update={"url": settings.ledger_url}).model_dump(mode="json")


def _host(settings: Settings, model: ModelConfig) -> ApplicationSpec:
    threads = plan_threads(settings).dedicated
    arguments = {
        # The number of replicas is an option, so that scaling does not replace the hosts that run.
        "model": model.model_dump(mode="json", exclude={"replicas", "max_replicas"}),
        "threads": threads,
        "folder": str(settings.node_dir),
        "engines": settings.engines,
    }
    options: dict[str, Any] = {"num_replicas": model.replicas}
    if model.max_replicas:
        options = {"autoscaling_config": autoscaling.config(model.replicas, model.max_replicas)}
    if settings.cluster.gateway_nodes:
        options["ray_actor_options"] = {"num_cpus": model.threads or threads, "num_gpus": model.gpus}
    return ApplicationSpec(APP_PREFIX + model.name, Host, host, arguments, options)


def _gateway(settings: Settings) -> ApplicationSpec:
    cluster = settings.cluster
    # The catalog is passed as user_config alone and the cluster's size as options, so that neither restarts a gateway.
    node = settings.model_dump(mode="json", exclude={*Catalog.model_fields, "cluster"}) | {"ledger": _ledger(settings)}
    options: dict[str, Any] = {
        "num_replicas": settings.gateways * max(1, cluster.gateway_nodes),
        "user_config": settings.catalog.model_dump(mode="json"),
    }
    if cluster.gateway_nodes:
        resources = {GATEWAY_RESOURCE: 1}
        options["ray_actor_options"] = {"num_cpus": 0, "num_gpus": cluster.gateway_gpus, "resources": resources}
    return ApplicationSpec(GATEWAY_APP, Gateway, gateway, {"settings": node}, options)
