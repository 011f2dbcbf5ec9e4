"""The gateway: the ingress deployment. It opens its own listeners and runs the data plane; Ray places and restarts it."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray import serve as ray_serve

import convoy
from convoy.errors import NotReady
from convoy.wire.oip_metadata import RepositoryEntry
from models.artifact import Artifact
from models.engines.store.store import open_store
from serve.auth import Access, read_local_key
from serve.config.schema import Catalog, ModelConfig, Settings
from serve.config.thread_plan import plan_threads
from serve.deployments.coordinator import CoordinatorClient
from serve.executors.base import Executor
from serve.executors.host import connect_host
from serve.executors.lazy import connect_local, open_memory
from serve.experiments.endpoint import with_own_queue
from serve.gateway.catalog_loader import CatalogLoader, close_endpoints
from serve.gateway.dataplane import DataPlane
from serve.gateway.repository import Repository
from serve.grpc.server import GrpcServer
from serve.http.server import HttpServer
from serve.images.decode_pool import DecodePool
from serve.node.socket_handover import Handover, find_listener
from serve.telemetry.definitions import BUILD, DECODE_BUSY, LOOP_BUSY
from serve.telemetry.logs import log_request, open_log
from serve.telemetry.mmap_store import MmapWriter
from serve.telemetry.recorder import Metrics
from serve.telemetry.tracing import request_tracer

if TYPE_CHECKING:
    from serve.experiments.manager import Experiments

HOST_PATIENCE_SECONDS = 120.0
SOCKET_PATIENCE_SECONDS = 60.0
LINGER_SECONDS = 1.0  # after the last accept: responses on open connections still carry `Connection: close`
DRAIN_SECONDS = 15.0
FLUSH_SECONDS = 0.1

log = logging.getLogger("convoy.gateway")


@ray_serve.deployment(
    name="gateway",
    health_check_period_s=5,
    health_check_timeout_s=10,
    graceful_shutdown_timeout_s=30,
    ray_actor_options={"num_cpus": 0},
)
class Gateway:
    """The deployment. `reconfigure` applies a new catalog without a restart."""

    async def __init__(self, settings: dict[str, Any]) -> None:  # type: ignore[misc] # Ray awaits it
        self._settings = Settings.model_validate(settings)
        self._threads = plan_threads(self._settings)
        self._metrics = Metrics(MmapWriter(self._settings.node_dir / "metrics"))
        self._metrics.set(BUILD, 1, version=convoy.__version__, ray=ray.__version__)
        decoders = DecodePool(self._threads.decode, self._metrics.values(DECODE_BUSY))
        access = Access(local_key=read_local_key(self._settings.node_dir))
        self._plane = DataPlane(self._settings.limits, decoders, access)
        self._ends: list[Callable[[], None]] = [decoders.close]
        self._observe()
        self._memory = open_memory(self._settings)
        self._store = open_store(self._settings.engines)
        self._http: HttpServer | None = None
        self._grpc: GrpcServer | None = None
        self._handover: Handover | None = None
        self._experiments = self._open_experiments()
        self._repository = Repository(
            self._plane,
            CatalogLoader(self._connect, self._metrics, self._settings.limits),
            CoordinatorClient(),
            f"{socket.gethostname()}-{os.getpid()}",
            self._metrics,
            self._experiments,
        )
        self._repository.start()
        self._plane.lag.start()
        self._ticker = asyncio.create_task(self._flush_metrics())

    def _observe(self) -> None:
        settings = self._settings
        self._ends.append(open_log(settings.node_dir / "logs", "gateway", settings.logging).close)
        if settings.logging.access:
            self._plane.observers.append(log_request)
        if settings.tracing.endpoint:
            tracer, end = request_tracer(settings.tracing)
            self._plane.observers.append(tracer)
            self._ends.append(end)

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Applies a new catalog and serves every model that can be loaded. The first call then opens the listeners.

        The first call raises NotReady if no model could be loaded.
        """
        catalog = Catalog.model_validate(user_config)
        self._plane.access.declare(catalog.keys)  # first: revoked keys must be refused even if a step below fails
        await self._repository.declare(catalog)
        if self._http is None:
            self._repository.check_start()
            await self._open()

    def problems(self) -> list[RepositoryEntry]:
        """The configured names that do not serve, with reasons."""
        return self._repository.problems()

    async def check_health(self) -> None:
        """Raises EngineFailed if no engine of this process answers."""
        await self._repository.check_health()

    async def __del__(self) -> None:
        """Drains: reports not ready while it still serves, then accepts no connections and finishes requests in flight."""
        self._plane.draining = True
        self._repository.close()
        if self._http is not None and self._grpc is not None:
            await self._grpc.say_unready()
            await asyncio.sleep(self._settings.listen.notice_seconds)
        if self._handover is not None:
            self._handover.close()
        if self._http is not None and self._grpc is not None:
            self._http.stop_accepting()
            await asyncio.gather(asyncio.sleep(LINGER_SECONDS), self._grpc.stop(DRAIN_SECONDS))
            await self._http.stop(DRAIN_SECONDS)
        await close_endpoints(with_own_queue(self._plane.endpoints.by_name.values()))
        if self._experiments is not None:
            await self._experiments.close()
        self._ticker.cancel()
        self._plane.lag.close()
        for end in self._ends:
            await asyncio.to_thread(end)

    def _open_experiments(self) -> Experiments | None:
        """Imports the database libraries only if a ledger is configured: most servers have none and start faster without."""
        config = self._settings.ledger
        if not config.url:
            return None
        from serve.experiments.ledger.store import Ledger
        from serve.experiments.manager import Experiments

        return Experiments(self._plane, self._metrics, Ledger(config.url), config)

    async def _connect(self, model: ModelConfig, artifact: Artifact) -> Executor:
        if model.placement == "dedicated":
            return await connect_host(model, HOST_PATIENCE_SECONDS)
        return await connect_local(model, artifact, self._store, self._threads.local, self._metrics, self._memory)

    async def _open(self) -> None:
        folder = self._settings.node_dir
        listener = await self._find_listener(folder)
        self._handover = Handover(folder / f"gateway-{os.getpid()}.sock", listener)
        self._http = HttpServer(
            self._plane, self._repository, self._metrics, self._settings, listener, self._experiments
        )
        self._grpc = GrpcServer(self._plane, self._repository, self._metrics, self._settings, self._experiments)
        await self._grpc.start()
        await self._http.start()

    async def _find_listener(self, folder: Path) -> Any:
        deadline = asyncio.get_running_loop().time() + SOCKET_PATIENCE_SECONDS
        while True:
            listener = await asyncio.to_thread(find_listener, folder)
            if listener is not None:
                return listener
            if asyncio.get_running_loop().time() > deadline:
                raise NotReady(f"the node agent offers no listening socket in {folder}")
            await asyncio.sleep(0.05)

    async def _flush_metrics(self) -> None:
        loop_busy = self._metrics.values(LOOP_BUSY)
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            loop_busy[0] = time.thread_time()
            for endpoint in self._plane.endpoints.by_name.values():
                endpoint.recorder.flush()
            for endpoint in with_own_queue(self._plane.endpoints.by_name.values()):
                endpoint.recorder.queue(endpoint.batcher.waiting_rows)
