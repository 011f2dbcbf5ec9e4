"""The one-machine way to run the applications: Ray started here, without its dashboard."""

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

# A batch of 32 photos is 4.8 MB and Ray's default limit between replicas is 4 MiB; gRPC halves what a handle call costs.
RAY_ENVIRONMENT = {
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(256 * 2**20),
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_worker_niceness": "0",  # Ray's default of 15 starves gateways beside anything else that runs
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_REPORT_URL": "",  # where a cluster would report even that its reports are off
    "RAY_enable_metrics_collection": "0",
    "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "10000",  # its own counters, on our event loops
    "grpc_proxy": "",  # goes before https_proxy and http_proxy, which stay for what is fetched from elsewhere
    **TELEMETRY_OFF,
}
CLOUD_NAMES = ("169.254.169.254", "metadata.google.internal")  # Ray asks them at its start in which cloud it is
OBJECT_STORE_BYTES = 80 * 2**20
ASK_SECONDS = 30.0


class InstalledCode(JobConfig):  # type: ignore[misc] # Ray has no stub
    """A job whose workers import what is installed, and nothing from the folder in which the server was started.

    `ray.init` puts the script's folder and the working directory first on its workers' path, where a user's `models.py`,
    `serve.py` or `http.py` would hide the package of that name. It does not where a job ships a working directory of its
    own. None is shipped here: the workers' working directory stays the user's, and so do relative paths of the configuration.
    """

    def _runtime_env_has_working_dir(self) -> bool:
        return True


def check(settings: Settings) -> None:
    """Everything that can be known to fail before anything starts. Raises ConfigError or ArtifactError."""
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


def node_environment(given: Mapping[str, str]) -> dict[str, str]:
    """What Ray's processes on this machine get beside the environment that is `given`."""
    own = RAY_ENVIRONMENT | bypass(given, *CLOUD_NAMES)
    if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(given):
        own["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # else Ray keeps one for good in the user's home
    return own


def start(settings: Settings, ray_started: Callable[[], None] = lambda: None) -> None:
    """Starts Ray on this machine alone, without its dashboard or proxies, and the applications; returns when they answer.

    `ray_started` is called before anything is served: Ray has then taken SIGTERM for itself.
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
    """Brings the applications to `settings`; Ray replaces their replicas, one after the other.

    Raises ConfigError with what a replica that cannot start says.
    """
    try:
        ray_serve.run_many([one.run_target() for one in applications(settings)], wait_for_applications_running=True)
    except RuntimeError as error:
        raise ConfigError(_complaint() or str(error)) from error


def _complaint() -> str:
    """The error of ours in the states of deployments."""
    deployments = [one for app in ray_serve.status().applications.values() for one in app.deployments.values()]
    return next(filter(None, (complaint(one.message) for one in deployments)), "")


def problems() -> list[RepositoryEntry]:
    """What a gateway could not bring into service, and why; nothing where this process cannot ask.

    Serve's handles work on an event loop alone in a process that began with RAY_ENVIRONMENT, instead of taking it for the
    processes that it starts. A server is up then as well, and `convoy models` says the same.
    """
    try:
        handle = ray_serve.get_app_handle(GATEWAY_APP).problems
    except RuntimeError:
        return []
    found: list[RepositoryEntry] = handle.remote().result(timeout_s=ASK_SECONDS)
    return found


def stop() -> None:
    """Drains and ends what `start` began: the gateways first, while what they call is there."""
    with redirect_stdout(io.StringIO()):  # where Ray prints that its controller, told to end, has ended
        ray_serve.delete(GATEWAY_APP)
        ray_serve.shutdown()  # type: ignore[no-untyped-call]
        ray.shutdown()
