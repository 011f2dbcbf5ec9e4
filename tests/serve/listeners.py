"""A gateway in the test process, without Ray: its listeners, engines and model repository."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from socket import create_connection, socket

from models.artifact import Artifact
from models.engines.store.store import open_store
from serve.auth import Access, make_local_key, read_local_key
from serve.config.schema import ModelConfig, Settings
from serve.executors.base import Executor
from serve.executors.lazy import connect_local, open_memory
from serve.experiments.endpoint import with_own_queue
from serve.experiments.ledger.store import Ledger
from serve.experiments.manager import Experiments
from serve.gateway.catalog_loader import CatalogLoader, close_endpoints
from serve.gateway.dataplane import DataPlane
from serve.gateway.repository import Decides, Repository
from serve.gateway.revisions import Revisions
from serve.grpc.server import GrpcServer
from serve.http.server import HttpServer
from serve.images.decode_pool import DecodePool
from serve.node.socket_handover import bind, prepare_folder
from serve.telemetry.definitions import DECODE_BUSY
from serve.telemetry.mmap_store import MmapWriter
from serve.telemetry.recorder import Metrics


@dataclass(frozen=True)
class Serving:
    """A running gateway: its addresses and components."""

    http: str
    grpc: str
    plane: DataPlane
    metrics: Metrics
    repository: Repository
    loop: asyncio.AbstractEventLoop
    listener: HttpServer
    admin: dict[str, str]  # headers or metadata with the admin key

    def connect(self) -> socket:
        """Opens a TCP connection to the HTTP listener. Reads and writes time out after 30 s."""
        host, port = self.http.partition("://")[2].split(":")
        return create_connection((host, int(port)), timeout=30)

    def connections(self) -> int:
        """Open HTTP connections."""
        return self.listener.connections


GatewaySettings = Callable[..., Settings]  # the fixture `gateway_settings`
StartGateway = Callable[..., AbstractContextManager[Serving]]  # the fixture `start_gateway`


def admin_headers(settings: Settings) -> dict[str, str]:
    """Headers with the local admin key of a server that runs on this machine."""
    return {"authorization": f"Bearer {read_local_key(settings.node_dir)}"}


class InProcess:
    """A gateway on the running event loop. Several gateways may share a coordinator."""

    def __init__(self, settings: Settings, coordinator: Decides, name: str) -> None:
        self.settings = settings
        self.metrics = Metrics(MmapWriter(settings.node_dir / "metrics"))
        self.decoders = DecodePool(2, self.metrics.values(DECODE_BUSY))
        prepare_folder(settings.node_dir)
        make_local_key(settings.node_dir)
        access = Access(settings.keys, read_local_key(settings.node_dir))
        self.plane = DataPlane(settings.limits, self.decoders, access)
        self.memory = open_memory(settings)
        self.store = open_store(settings.engines)
        self.loader = CatalogLoader(self.connect, self.metrics, settings.limits)
        self.experiments: Experiments | None = None
        if settings.ledger_url:
            ledger = Ledger(settings.ledger_url)
            self.experiments = Experiments(self.plane, self.metrics, ledger, settings.ledger)
        self.repository = Repository(self.plane, self.loader, coordinator, name, self.metrics, self.experiments)

    async def open(self) -> None:
        listen = self.settings.listen
        self.repository.start()
        await self.repository.declare(self.settings.catalog)
        listener = bind(listen.host, listen.http_port)
        self.http = HttpServer(self.plane, self.repository, self.metrics, self.settings, listener, self.experiments)
        self.grpc = GrpcServer(self.plane, self.repository, self.metrics, self.settings, self.experiments)
        await self.grpc.start()
        await self.http.start()
        self.ticker = asyncio.create_task(self.flush())

    async def flush(self) -> None:
        while True:
            await asyncio.sleep(0.05)
            for endpoint in self.plane.endpoints.by_name.values():
                endpoint.recorder.flush()
            for endpoint in with_own_queue(self.plane.endpoints.by_name.values()):
                endpoint.recorder.queue(endpoint.batcher.waiting_rows)

    async def close(self) -> None:
        self.ticker.cancel()
        self.repository.close()
        await self.http.stop(1)
        await self.grpc.stop(1)
        await close_endpoints(with_own_queue(self.plane.endpoints.by_name.values()))
        self.decoders.close()
        if self.experiments is not None:
            await self.experiments.close()
        for _ in range(10):  # transports that were just closed free their sockets in a later turn of the event loop
            await asyncio.sleep(0)

    async def connect(self, model: ModelConfig, artifact: Artifact) -> Executor:
        return await connect_local(model, artifact, self.store, 1, self.metrics, self.memory)


@contextmanager
def serving(settings: Settings) -> Iterator[Serving]:
    """Runs a gateway on a thread of its own until the block ends. All engines run in this process."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def begin() -> InProcess:
        gateway = InProcess(settings, Revisions(), "gateway")
        await gateway.open()
        return gateway

    gateway = asyncio.run_coroutine_threadsafe(begin(), loop).result(300)
    listen = settings.listen
    secure = "s" if listen.tls else ""
    http, grpc = f"http{secure}://{listen.host}:{listen.http_port}", f"grpc{secure}://{listen.host}:{listen.grpc_port}"
    try:
        yield Serving(
            http, grpc, gateway.plane, gateway.metrics, gateway.repository, loop, gateway.http, admin_headers(settings)
        )
    finally:
        asyncio.run_coroutine_threadsafe(gateway.close(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def receive_all(client: socket) -> bytes:
    """Reads until the server closes the connection. The socket's timeout fails the test if the server does not."""
    received = b""
    with contextlib.suppress(ConnectionResetError):  # the server closed while bytes of the client were in transit
        while piece := client.recv(65536):
            received += piece
    return received
