"""The composition root: settings in, Ray Serve applications out; `convoy up` and Serve's config schema build the same ones."""

from __future__ import annotations

from collections.abc import Iterator
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

GATEWAY_APP = "gateway"
PROXY_LOCATION = "Disabled"  # the gateway owns its listeners
LOGGING: dict[str, Any] = {"log_level": "WARNING", "enable_access_log": False}
# Custom resources tie replicas to nodes: each offers one meter; a node for gateways also those, and a
# steward, half of it for the referee.
GATEWAY_RESOURCE = "convoy_gateway"
STEWARD_RESOURCE = "convoy_steward"


@dataclass(frozen=True)
class ApplicationSpec:
    """An application of one deployment: what it is bound to, and the options that Serve may change in place.

    A change of an argument makes Serve replace the replicas; so what may change without that is an option.
    """

    name: str
    deployment: Any
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
            "import_path": f"{__name__}:{self.deployment.name}",
            "args": self.arguments,
            "deployments": [{"name": self.deployment.name, **self.options}],
        }


def meter(arguments: dict[str, Any]) -> Application:
    """Builder of the config schema."""
    return _bind(NodeAgent, arguments)


def steward(arguments: dict[str, Any]) -> Application:
    """Builder of the config schema."""
    return _bind(Coordinator, arguments)


def referee(arguments: dict[str, Any]) -> Application:
    """Builder of the config schema."""
    return _bind(ExperimentControllerDeployment, arguments)


def host(arguments: dict[str, Any]) -> Application:
    """Builder of the config schema."""
    return _bind(Host, arguments)


def gateway(arguments: dict[str, Any]) -> Application:
    """Builder of the config schema."""
    return _bind(Gateway, arguments)


def _bind(deployment: Any, arguments: dict[str, Any]) -> Application:
    application: Application = deployment.bind(**arguments)
    return application


def applications(settings: Settings) -> Iterator[ApplicationSpec]:
    """The meter, the steward, the referee of experiments, a host application per dedicated model, and the gateway."""
    yield _meter(settings)
    yield _steward(settings)
    if settings.ledger_url:
        yield _referee(settings)
    for model in settings.models:
        if model.placement == "dedicated":
            yield _host(settings, model)
    yield _gateway(settings)


def _meter(settings: Settings) -> ApplicationSpec:
    cluster = settings.cluster
    arguments: dict[str, Any] = {
        "listen": settings.listen.model_dump(mode="json"),
        "power": settings.power.model_dump(mode="json"),
        "folder_name": str(settings.node_dir),
    }
    if readers := [key.model_dump(mode="json") for key in settings.keys if key.metrics]:
        arguments["keys"] = readers
    if not cluster.gateway_nodes:
        return ApplicationSpec("meter", NodeAgent, arguments)
    options = {
        "num_replicas": cluster.gateway_nodes + cluster.host_nodes,
        "ray_actor_options": {"num_cpus": 0, "resources": {METER_RESOURCE: 1}},
    }
    return ApplicationSpec("meter", NodeAgent, arguments, options)


def _steward(settings: Settings) -> ApplicationSpec:
    return ApplicationSpec(STEWARD_APP, Coordinator, {}, _beside_gateways(settings))


def _referee(settings: Settings) -> ApplicationSpec:
    arguments = {"ledger": _ledger(settings), "folder": str(settings.node_dir)}
    return ApplicationSpec(REFEREE_APP, ExperimentControllerDeployment, arguments, _beside_gateways(settings))


def _beside_gateways(settings: Settings) -> dict[str, Any]:
    if not settings.cluster.gateway_nodes:
        return {}
    return {"ray_actor_options": {"num_cpus": 0, "resources": {STEWARD_RESOURCE: 0.5}}}


def _ledger(settings: Settings) -> dict[str, Any]:
    return settings.ledger.model_copy(update={"url": settings.ledger_url}).model_dump(mode="json")


def _host(settings: Settings, model: ModelConfig) -> ApplicationSpec:
    threads = plan_threads(settings).dedicated
    arguments = {
        # The number of replicas is an option: more hosts are no reason to replace those that are there.
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
    return ApplicationSpec(APP_PREFIX + model.name, Host, arguments, options)


def _gateway(settings: Settings) -> ApplicationSpec:
    cluster = settings.cluster
    # The catalog travels as user_config alone, the cluster's size as options: what stays is what a new process needs.
    node = settings.model_dump(mode="json", exclude={*Catalog.model_fields, "cluster"}) | {"ledger": _ledger(settings)}
    options: dict[str, Any] = {
        "num_replicas": settings.gateways * max(1, cluster.gateway_nodes),
        "user_config": settings.catalog.model_dump(mode="json"),
    }
    if cluster.gateway_nodes:
        actor = {"num_cpus": 0, "num_gpus": cluster.gateway_gpus, "resources": {GATEWAY_RESOURCE: 1}}
        options["ray_actor_options"] = actor
    return ApplicationSpec(GATEWAY_APP, Gateway, {"settings": node}, options)
