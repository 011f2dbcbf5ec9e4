"""The HTTP listener: uvicorn as a library on a socket it is given, and the hot routes as raw ASGI.

`HttpApp.__call__` is the path of a hot request; whatever else is asked goes to the Starlette pages.
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

LOOK_SECONDS = 1.0  # between two looks at whose client takes too long
CORS_SECONDS = 600  # for which a browser may keep what it was told

log = logging.getLogger("convoy.http")


def allow_origins(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """Lets scripts of these sites, and of no other, read answers; without cookies, which mean nothing here."""
    asked = [name.decode() for name in (REQUEST_ID, TIMEOUT_HEADER, PRIORITY_HEADER)]
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=["GET", "POST"],
        allow_headers=["authorization", "content-type", "x-api-key", *asked],
        expose_headers=[REQUEST_ID.decode(), ARM_HEADER.decode(), "retry-after"],
        max_age=CORS_SECONDS,
    )


class EmbeddedServer(uvicorn.Server):
    """uvicorn inside a process whose signals belong to somebody else."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's own, on one socket of `sockets`, from which all that waits is accepted."""
        assert sockets
        config, listener = self.config, sockets[0]
        await self.lifespan.startup()  # it is off, and says so
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
    """Serves a gateway's HTTP on a listening socket that other processes may share."""

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
        self._looks: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._server.serve(sockets=[self._listener]))
        while not self._server.started:  # noqa: ASYNC110 uvicorn tells no other way
            await asyncio.sleep(0.005)
        self._looks = asyncio.create_task(self._look())

    def stop_accepting(self) -> None:
        """Leaves new connections to whoever else holds the socket; the living ones go on."""
        for server in self._server.servers:
            server.close()

    async def stop(self, seconds: float) -> None:
        """Finishes what is in flight, at most `seconds`, and closes."""
        self._server.config.timeout_graceful_shutdown = int(seconds)
        self._server.should_exit = True
        if self._task is not None:
            await self._task
        if self._looks is not None:
            self._looks.cancel()

    async def _look(self) -> None:
        """Ends connections whose clients take too long."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for connection in list(self._server.server_state.connections):
                cast(Connection, connection).check_time(loop.time())
