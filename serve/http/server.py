"""The HTTP listener: uvicorn as a library, on a listening socket that the caller provides.

Hot requests run through `HttpApp` as raw ASGI; all others go to the Starlette application of `serve/http/routes.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, cast

import uvicorn
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from serve.acceptor import Acceptor
from serve.config.schema import Settings
from serve.experiments.caller import ARM_HEADER
from serve.gateway.dataplane import DataPlane
from serve.gateway.repository import Repository
from serve.http.app import HttpApp
from serve.http.body import BodyMemory
from serve.http.connection import Connection
from serve.http.request_headers import PRIORITY_HEADER, TIMEOUT_HEADER
from serve.http.responses import REQUEST_ID
from serve.http.routes import build_routes
from serve.telemetry.recorder import Metrics
from serve.tls import uvicorn_options

if TYPE_CHECKING:
    from serve.experiments.manager import Experiments

CHECK_SECONDS = 1.0  # between two checks of all connections for timeouts
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


class EmbeddedServer(uvicorn.Server):
    """A uvicorn server that leaves signals to its process."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Replaces uvicorn's startup to accept from the first of `sockets` through an `Acceptor`."""
        assert sockets
        config, listener = self.config, sockets[0]
        await self.lifespan.startup()  # a no-op with lifespan="off" that sets the state uvicorn expects
        connection = cast(Callable[..., asyncio.Protocol], config.http_protocol_class)
        state = {"server_state": self.server_state, "app_state": self.lifespan.state}
        acceptor = Acceptor(partial(connection, config=config, **state), config.ssl)
        await acceptor.start(listener, config.backlog)
        self.servers = [cast(asyncio.Server, acceptor)]
        self.started = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


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
        listen, limits = settings.listen, settings.limits
        hot = self.hot = HttpApp(plane, metrics, build_routes(plane, repository, settings, experiments))
        config = uvicorn.Config(
            allow_origins(hot, listen.cors_origins) if listen.cors_origins else hot,
            http=cast(type[asyncio.Protocol], partial(Connection, limits, BodyMemory(), hot)),
            ws="none",
            lifespan="off",
            interface="asgi3",
            access_log=False,
            proxy_headers=False,
            log_config=None,
            server_header=False,
            date_header=False,
            timeout_keep_alive=int(limits.idle_seconds),
            limit_concurrency=limits.connections,
            **(uvicorn_options(listen.tls) if listen.tls else {}),
        )
        self._server = EmbeddedServer(config)
        self._listener = listener
        self._task: asyncio.Task[None] | None = None
        self._checks: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns once the server accepts connections."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._listener]))
        while not self._server.started:  # noqa: ASYNC110 uvicorn has no event for it
            await asyncio.sleep(0.005)
        self._checks = asyncio.create_task(self._check_connections())

    def stop_accepting(self) -> None:
        """Leaves new connections to the other processes that share the socket. Open connections continue."""
        for server in self._server.servers:
            server.close()

    async def stop(self, seconds: float) -> None:
        """Completes the requests in flight within `seconds`, then closes all connections."""
        self._server.config.timeout_graceful_shutdown = int(seconds)
        self._server.should_exit = True
        if self._task is not None:
            await self._task
        if self._checks is not None:
            self._checks.cancel()

    async def _check_connections(self) -> None:
        """Closes the connections of clients that are too slow."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            for connection in list(self._server.server_state.connections):
                cast(Connection, connection).check_time(loop.time())
