"""The HTTP listener, on a listening socket that the caller provides.

Requests to models go to `HttpApp`; all others to the Starlette application of `serve/http/routes.py`.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from serve.acceptor import Acceptor
from serve.config.schema import Settings
from serve.experiments.caller import ARM_HEADER
from serve.gateway.dataplane import DataPlane
from serve.gateway.repository import Repository
from serve.gateway.request_tracker import RequestTracker
from serve.http.app import HTTP, HttpApp
from serve.http.http1.connection import Connection
from serve.http.http1.listener import Listener
from serve.http.request_headers import PRIORITY_HEADER, TIMEOUT_HEADER
from serve.http.responses import REQUEST_ID
from serve.http.routes import build_routes
from serve.telemetry.recorder import Metrics
from serve.tls import server_context

if TYPE_CHECKING:
    from serve.experiments.manager import Experiments

CHECK_SECONDS = 1.0  # between two checks of all connections for timeouts
BACKLOG = 2048  # connections that the kernel holds until they are accepted
CORS_SECONDS = 600  # for which a browser may cache a preflight response

log = logging.getLogger("convoy.http")


def allow_origins(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """Allows scripts of these origins to call the server (CORS), without cookies, which the server does not use."""
    own_headers = [name.decode() for name in (REQUEST_ID, TIMEOUT_HEADER, PRIORITY_HEADER)]
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=["GET", "POST"],
        allow_headers=["authorization", "content-type", "x-api-key", *own_headers],
        expose_headers=[REQUEST_ID.decode(), ARM_HEADER.decode(), "retry-after"],
        max_age=CORS_SECONDS,
    )


class HttpServer:
    """The HTTP server of a gateway, on a listening socket that other gateways may share."""

    def __init__(
        self,
        plane: DataPlane,
        repository: Repository,
        metrics: Metrics,
        settings: Settings,
        listener: socket.socket,
        experiments: Experiments | None = None,
    ) -> None:
        """Raises ConfigError for a missing or invalid file of TLS."""
        listen = settings.listen
        requests = RequestTracker(plane, metrics, HTTP)
        routes = build_routes(plane, repository, settings, requests, experiments)
        models = self.models = HttpApp(plane, requests, routes)
        app = allow_origins(models, listen.cors_origins) if listen.cors_origins else models
        self._shared = Listener(app, models, settings.limits, partial(requests.count_unserved, ""))
        self._context = server_context(listen.tls) if listen.tls else None
        self._socket = listener
        self._acceptor: Acceptor | None = None
        self._checks: asyncio.Task[None] | None = None

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return len(self._shared.connections)

    async def start(self) -> None:
        """Returns once the server accepts connections."""
        self._acceptor = Acceptor(partial(Connection, self._shared), self._context)
        await self._acceptor.start(self._socket, BACKLOG)
        self._checks = asyncio.create_task(self._check_connections())

    def stop_accepting(self) -> None:
        """Leaves new connections to the other processes that share the socket. Open connections continue."""
        if self._acceptor is not None:
            self._acceptor.close()

    async def stop(self, seconds: float) -> None:
        """Completes the requests in flight within `seconds`, then closes all connections."""
        self.stop_accepting()
        self._socket.close()
        self._shared.stopped = True
        for connection in list(self._shared.connections):
            connection.shutdown()
        try:
            async with asyncio.timeout(seconds):
                await self._shared.wait_closed()
        except TimeoutError:
            log.error("%d connections did not end within %g seconds", self.connections, seconds)
        for connection in list(self._shared.connections):
            connection.cancel()
        if self._acceptor is not None:
            await self._acceptor.wait_closed()
        if self._checks is not None:
            self._checks.cancel()

    async def _check_connections(self) -> None:
        """Closes the connections of clients that are too slow."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            for connection in list(self._shared.connections):
                connection.check_time(loop.time())
