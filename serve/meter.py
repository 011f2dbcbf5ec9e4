"""The meter: one per node. Keeps the node's listening socket and serves the metrics of all its processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.metrics_core import Metric
from ray import serve as ray_serve

from serve.config import Listen
from serve.metric_pages import read_pages
from serve.metrics import collect
from serve.sockets import KEEPER, Handover, bind, find_listener, has_port, prepare_folder


class PagesCollector:
    """Prometheus collector of the pages of a node."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        return collect(read_pages(self._folder))


def serve_metrics(listen: Listen, folder: Path) -> WSGIServer:
    """Starts the node's metrics endpoint on a thread."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(PagesCollector(folder))
    server, _ = start_http_server(listen.metrics_port, listen.host, registry)
    return server


def keep_listener(listen: Listen, folder: Path) -> Handover:
    """Takes the node's HTTP socket from a living gateway, or opens it, and hands it out from now on."""
    prepare_folder(folder)
    listener = find_listener(folder)
    if listener is None or not has_port(listener, listen.host, listen.http_port):
        listener = bind(listen.host, listen.http_port)
    return Handover(folder / KEEPER, listener)


@ray_serve.deployment(
    name="meter",
    num_replicas=1,
    health_check_period_s=5,
    graceful_shutdown_timeout_s=5,
    ray_actor_options={"num_cpus": 0},
)
class Meter:
    """Deployment of the meter."""

    def __init__(self, listen: dict[str, object], folder: str) -> None:
        parsed = Listen.model_validate(listen)
        self._handover = keep_listener(parsed, Path(folder))
        self._server = serve_metrics(parsed, Path(folder) / "metrics")

    def __del__(self) -> None:
        self._handover.close()
        self._server.shutdown()
        self._server.server_close()
