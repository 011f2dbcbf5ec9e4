"""Runs the applications on one machine: starts Ray here, without its dashboard."""

from __future__ import annotations

import io
import logging
import os
import secrets
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout

import ray
from ray import serve as ray_serve
from ray.job_config import JobConfig
from ray.serve.schema import LoggingConfig

from convoy.errors import ConfigError
from convoy.proxies import bypass
from convoy.wire.oip_metadata import RepositoryEntry
from models import TELEMETRY_OFF
from models.artifact import Artifact
from serve.auth import make_local_key
from serve.cluster.rpc import complaint
from serve.config.schema import Settings
from serve.config.thread_plan import plan_threads
from serve.deployments.applications import GATEWAY_APP, LOGGING, PROXY_LOCATION, applications
from serve.ensembles.factory import check_compositions
from serve.executors.engine_selection import check_engines
from serve.executors.lazy import check_memory
from serve.experiments.arms import check_arms
from serve.node.socket_handover import bind, prepare_folder
from serve.telemetry.mmap_store import clear_files
from serve.tls import server_context

# gRPC halves the cost of a handle call. A batch of 32 photos is 4.8 MB, and Ray's default limit is 4 MiB.
RAY_ENVIRONMENT = {
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(256 * 2**20),
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_worker_niceness": "0",  # with Ray's default of 15, any other process on the machine starves the gateways
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_REPORT_URL": "",  # otherwise Ray even reports that its usage reports are off
    "RAY_enable_metrics_collection": "0",
    "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "10000",  # Serve exports its own metrics on our event loops
    "grpc_proxy": "",  # precedes https_proxy and http_proxy, which stay in force for downloads
    **TELEMETRY_OFF,
}
CLOUD_METADATA_HOSTS = (
    "169.254.169.254",
    "metadata.google.internal",
)  # Ray queries them when it starts, to find out the cloud provider
OBJECT_STORE_BYTES = 80 * 2**20  # near Ray's minimum: batches travel over gRPC, not through the object store
PROBLEMS_TIMEOUT_SECONDS = 30.0


class InstalledCode(JobConfig):
    """Configuration of a Ray job whose workers import installed code only, nothing from the user's working directory.

    `ray.init` puts the script's folder and the working directory first on the workers' `sys.path`, where a user's `models.py`
    or `http.py` hides the package of that name. Ray skips this only for a job that ships a working directory to its
    workers, so this configuration declares one. It ships none: the workers run in the user's directory, so relative paths of
    convoy.yaml work there.
    """

    def _runtime_env_has_working_dir(self) -> bool:
        return True


def check(settings: Settings) -> None:
    """Checks everything that can be checked before Ray starts. Raises ConfigError or ArtifactError."""
    artifacts = {model.name: Artifact.load(model.folder) for model in settings.models}
    manifests = {name: artifact.manifest for name, artifact in artifacts.items()}
    check_compositions(settings.catalog, manifests)
    check_arms(settings.catalog, manifests)
    check_memory(settings, artifacts)
    check_engines(settings, artifacts)
    prepare_folder(settings.node_dir)
    if settings.ledger_url:
        from serve.experiments.ledger.store import Ledger

        Ledger(settings.ledger_url).close()
    listen = settings.listen
    if listen.tls is not None:
        server_context(listen.tls)
    for port in (listen.http_port, listen.grpc_port, listen.metrics_port):
        bind(listen.host, port).close()


def node_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that Ray's processes on this machine need in addition to `environment`, the user's."""
    added = RAY_ENVIRONMENT | bypass(environment, *CLOUD_METADATA_HOSTS)
    if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(environment):
        added["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # otherwise Ray stores a permanent one in the user's home
    return added


def start(settings: Settings, ray_started: Callable[[], None] = lambda: None) -> None:
    """Starts Ray on this machine, without dashboard and proxies, and the applications. Returns when they answer.

    `ray_started` is called as soon as Ray runs: Ray has then replaced the handler of SIGTERM, so the caller may install its
    own again. Raises ConfigError or ArtifactError.
    """
    os.environ.update(node_environment(os.environ))
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    check(settings)
    clear_files(settings.node_dir / "metrics")
    make_local_key(settings.node_dir)
    threads = plan_threads(settings)
    ray.init(
        address="local",
        job_config=InstalledCode(),
        num_cpus=threads.cores,
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    ray_started()
    ray_serve.start(proxy_location=PROXY_LOCATION, logging_config=LoggingConfig(**LOGGING))
    deploy(settings)


def deploy(settings: Settings) -> None:
    """Deploys the applications of `settings`; Ray replaces changed replicas one after the other.

    Raises ConfigError with the error of a replica that cannot start.
    """
    try:
        targets = [application.run_target() for application in applications(settings)]
        ray_serve.run_many(targets, wait_for_applications_running=True)
    except RuntimeError as error:
        raise ConfigError(_replica_error() or str(error)) from error


def _replica_error() -> str:
    """The first ConvoyError in the states of the deployments; empty when there is none."""
    states = [state for app in ray_serve.status().applications.values() for state in app.deployments.values()]
    return next(filter(None, (complaint(state.message) for state in states)), "")


def problems() -> list[RepositoryEntry]:
    """The configured names that a gateway does not serve, with reasons; empty if this process cannot call a gateway.

    In a process that was started with RAY_ENVIRONMENT already set, Serve's handles work only on an event loop, and the call
    raises RuntimeError. The server is up nevertheless, and `convoy models` shows the same problems.
    """
    try:
        handle = ray_serve.get_app_handle(GATEWAY_APP).problems
    except RuntimeError:
        return []
    entries: list[RepositoryEntry] = handle.remote().result(timeout_s=PROBLEMS_TIMEOUT_SECONDS)
    return entries


def stop() -> None:
    """Drains and stops everything that `start` started. Gateways stop first, because they call hosts while they drain."""
    with redirect_stdout(io.StringIO()):  # Ray prints that its controller was killed, which is expected
        ray_serve.delete(GATEWAY_APP)
        ray_serve.shutdown()  # type: ignore[no-untyped-call]
        ray.shutdown()
