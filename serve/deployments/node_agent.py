"""The node agent (Ray application `meter`), one per node: keeps the HTTP socket open, accounts for energy, serves metrics."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry
from ray import serve as ray_serve

from serve.config.schema import ApiKey, Listen, Power
from serve.energy.accountant import Accountant, keep_account
from serve.energy.discovery import find_sources
from serve.energy.nvml import Gpu, find_gpus
from serve.node.collector import MetricsCollector
from serve.node.metrics_server import listen_for_scrapes
from serve.node.socket_handover import KEEPER, Handover, bind, find_listener, has_port, prepare_folder
from serve.telemetry.definitions import CORES
from serve.telemetry.mmap_store import MmapWriter
from serve.telemetry.proc import machine_cores
from serve.telemetry.recorder import Metrics

log = logging.getLogger("convoy.meter")  # users filter logs by this name


def serve_metrics(listen: Listen, folder: Path, gpus: Sequence[Gpu] = (), keys: Sequence[ApiKey] = ()) -> WSGIServer:
    """Starts the node's metrics endpoint on a thread."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(MetricsCollector(folder, gpus))
    return listen_for_scrapes(listen, registry, keys)


def keep_listener(listen: Listen, folder: Path) -> Handover:
    """Obtains the node's listening socket from a running gateway, or binds it, and then hands it to gateways that start.

    Raises ConfigError if the port is taken.
    """
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
class NodeAgent:
    """The Ray Serve deployment of a node agent."""

    def __init__(
        self, listen: dict[str, Any], power: dict[str, Any], folder_name: str, keys: Sequence[dict[str, Any]] = ()
    ) -> None:
        """`keys`: the API keys that may read metrics. Without keys, metrics are public."""
        parsed, folder = Listen.model_validate(listen), Path(folder_name)
        self._handover = keep_listener(parsed, folder)
        metrics = Metrics(MmapWriter(folder / "metrics"))
        metrics.set(CORES, machine_cores())
        gpus = find_gpus()
        self._stopped = threading.Event()
        sources = find_sources(Power.model_validate(power), gpus)
        if not sources:
            log.warning("no power source found, so energy metrics are absent; docs/energy.md explains how to get one")
        keep_account(Accountant(sources, metrics), self._stopped)
        metrics_keys = [ApiKey.model_validate(key) for key in keys]
        self._server = serve_metrics(parsed, folder / "metrics", gpus, metrics_keys)

    def __del__(self) -> None:
        self._stopped.set()
        self._handover.close()
        self._server.shutdown()
        self._server.server_close()
