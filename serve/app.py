"""The composition root: settings in, Ray Serve applications out, and the one-machine way to run them."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterator
from contextlib import redirect_stdout

import ray
from ray import serve as ray_serve
from ray.serve import RunTarget
from ray.serve.schema import LoggingConfig

from models.artifact import Artifact
from serve.compose import check_compositions
from serve.config import Catalog, Settings
from serve.gateway import Gateway
from serve.host import APP_PREFIX, Host
from serve.meter import Meter
from serve.metric_pages import clear_pages
from serve.on_demand import check_memory
from serve.sockets import bind, prepare_folder
from serve.steward import STEWARD_APP, Steward
from serve.threads import plan_threads

# A batch of 32 photos is 4.8 MB and Ray's default limit between replicas is 4 MiB; gRPC halves what a handle call costs.
RAY_ENVIRONMENT = {
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(256 * 2**20),
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_worker_niceness": "0",  # Ray's default of 15 starves gateways beside anything else that runs
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
}
OBJECT_STORE_BYTES = 80 * 2**20


def check(settings: Settings) -> None:
    """Everything that can be known to fail before anything starts. Raises ConfigError or ArtifactError."""
    artifacts = {model.name: Artifact.load(model.folder) for model in settings.models}
    check_compositions(settings.catalog, {name: artifact.manifest for name, artifact in artifacts.items()})
    check_memory(settings, artifacts)
    prepare_folder(settings.node_dir)
    listen = settings.listen
    for port in (listen.http_port, listen.grpc_port, listen.metrics_port):
        bind(listen.host, port).close()


def applications(settings: Settings) -> Iterator[RunTarget]:
    """The meter, the steward, a host application per dedicated model, and the gateway."""
    folder = str(settings.node_dir)
    threads = plan_threads(settings)
    meter = Meter.bind(settings.listen.model_dump(), settings.power.model_dump(), folder)  # type: ignore[attr-defined]
    yield RunTarget(meter, name="meter", route_prefix=None)
    yield RunTarget(Steward.bind(), name=STEWARD_APP, route_prefix=None)  # type: ignore[attr-defined]
    for model in settings.models:
        if model.placement == "dedicated":
            host = Host.options(num_replicas=model.replicas).bind(model.model_dump(), threads.dedicated, folder)  # type: ignore[attr-defined]
            yield RunTarget(host, name=APP_PREFIX + model.name, route_prefix=None)
    gateway = Gateway.options(num_replicas=settings.gateways, user_config=settings.catalog.model_dump(mode="json"))  # type: ignore[attr-defined]
    # The catalog travels as user_config alone: an argument that changes would make Ray replace the replicas.
    node = settings.model_dump(mode="json", exclude=set(Catalog.model_fields))
    yield RunTarget(gateway.bind(node), name="gateway", route_prefix=None)


def start(settings: Settings) -> None:
    """Starts Ray on this machine alone, without its dashboard or proxies, and the applications; returns when they answer."""
    os.environ.update(RAY_ENVIRONMENT)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    check(settings)
    clear_pages(settings.node_dir / "metrics")
    threads = plan_threads(settings)
    ray.init(
        address="local",
        num_cpus=threads.cores,
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    ray_serve.start(
        proxy_location="Disabled", logging_config=LoggingConfig(log_level="WARNING", enable_access_log=False)
    )
    deploy(settings)


def deploy(settings: Settings) -> None:
    """Brings the applications to `settings`; Ray replaces their replicas, one after the other."""
    ray_serve.run_many(list(applications(settings)), wait_for_applications_running=True)


def stop() -> None:
    """Drains and ends what `start` began."""
    with redirect_stdout(io.StringIO()):  # where Ray prints that its controller, told to end, has ended
        ray_serve.shutdown()  # type: ignore[no-untyped-call]
        ray.shutdown()
