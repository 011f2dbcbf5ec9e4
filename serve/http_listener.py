"""The HTTP listener: uvicorn as a library on a socket it is given, and the hot routes as raw ASGI.

`HttpApp.__call__` is the path of a hot request; whatever else is asked goes to the Starlette pages.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, cast

import uvicorn
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from convoy.errors import ConvoyError, Overloaded
from serve.acceptor import Acceptor
from serve.catalog import Endpoint
from serve.config import Settings
from serve.dataplane import DataPlane, Watch
from serve.experiments.caller import ARM_HEADER, http_caller
from serve.experiments.front import ExperimentEndpoint
from serve.http_access import shown_key
from serve.http_answers import JSON, REQUEST_ID, Headers, send_answer, send_error, whole_error
from serve.http_body import Headers as RequestHeaders
from serve.http_body import Receive, Scope, Send, read_body
from serve.http_classify import carries_large_image
from serve.http_connection import BEGAN, WATCH, Connection, Room
from serve.http_dialects import DIALECTS, Dialect
from serve.http_encoding import encode_answer
from serve.http_infer import infer_http
from serve.http_pages import build_pages
from serve.metrics import IN_FLIGHT, Metrics
from serve.observe import FAULT, Finished
from serve.repository import Repository
from serve.timeline import Trace
from serve.timeouts import PRIORITY_HEADER, TIMEOUT_HEADER, http_terms
from serve.tls import uvicorn_options

if TYPE_CHECKING:
    from serve.experiments.gateway import Experiments

TRACEPARENT = b"traceparent"
ORIGIN = b"origin"  # of a script, for which CORSMiddleware adds to the answer
LOOK_SECONDS = 1.0  # between two looks at whose client takes too long
WAIT_SECONDS = 0.002
REPEAT = 0.02  # of what a refused request would wait, or may take: for so long its refusal holds for the next ones
MOST_REFUSALS = 64  # that are kept: of as many models, deadlines and priorities
CORS_SECONDS = 600  # for which a browser may keep what it was told

log = logging.getLogger("convoy.http")

Handler = Callable[[Endpoint, Scope, RequestHeaders, Receive, Trace], Awaitable[tuple[bytes, Headers]]]


class Refusal(NamedTuple):
    """What a request was told that would be late, and until when others of the same terms are told the same.

    `used`: seconds of its time that were over. Who has used less of as much, by more than `WAIT_SECONDS`, might still be in time.
    """

    until: float
    used: float
    error: Overloaded
    answer: bytes


class HotRoute(NamedTuple):
    """What a path of a model leads to; `images`: its bodies may be a lone image."""

    endpoint: Endpoint
    handler: Handler
    images: bool


class HttpApp:
    """ASGI application of a gateway."""

    def __init__(self, plane: DataPlane, metrics: Metrics, pages: ASGIApp) -> None:
        self._plane = plane
        self._pages = pages
        self._clock = time.monotonic
        self._in_flight = metrics.values(IN_FLIGHT, protocol="http")
        self._routes: dict[str, HotRoute] = {}
        self._refusals: dict[tuple[bytes, bytes | None, bytes | None, bool], Refusal] = {}
        plane.on_change.append(self._map_routes)
        self._map_routes()

    def _map_routes(self) -> None:
        routes: dict[str, HotRoute] = {}
        for endpoint in self._plane.endpoints.by_name.values():
            for dialect in DIALECTS:
                for path in dialect.paths:
                    handler = partial(self._classify, dialect)
                    routes[path.format(endpoint.name, endpoint.version)] = HotRoute(endpoint, handler, images=True)
            for version in ("", f"/versions/{endpoint.version}"):
                routes[f"/v2/models/{endpoint.name}{version}/infer"] = HotRoute(endpoint, self._infer, images=False)
        self._routes = routes
        self._refusals.clear()
        self._urls = frozenset(path.encode() for path in routes)

    def is_hot(self, url: bytes) -> bool:
        """Whether a POST to exactly this URL goes to a model."""
        return url in self._urls

    def refuse(self, url: bytes, asked: RequestHeaders, began: float) -> bytes | None:
        """The whole answer to a request of a hot URL that would be late whatever its body is; None for one to be read.

        Under overload most requests end here, so this costs no task, and the body is not kept. What was answered to a request
        of the same terms is answered again for a while.
        """
        if not self._plane.access.open or self._plane.draining or ORIGIN in asked:
            return None
        route, trace = self._routes[url.decode()], Trace(self._start(began))
        large = route.images and carries_large_image(asked)
        key = (url, asked.get(TIMEOUT_HEADER), asked.get(PRIORITY_HEADER), large)
        refusal = self._refusals.get(key)
        now = self._clock()
        if (
            refusal is None
            or now > refusal.until
            or now - trace.started < refusal.used - WAIT_SECONDS
            or REQUEST_ID in asked
        ):
            refusal = self._judge(route.endpoint, asked, trace, large)
            if refusal is None:
                self._plane.lag.admitted()
                return None
            if REQUEST_ID not in asked:
                if len(self._refusals) == MOST_REFUSALS:
                    self._refusals.clear()
                self._refusals[key] = refusal
        self._plane.record_failure(route.endpoint, refusal.error, trace)
        self._count(route.endpoint, asked, refusal.error.http_status, str(refusal.error), trace)
        return refusal.answer

    def _judge(self, endpoint: Endpoint, asked: RequestHeaders, trace: Trace, large: bool) -> Refusal | None:
        """The refusal of a request that would be late, if it is."""
        try:
            terms = http_terms(self._plane, asked, trace)
            self._plane.check_room(endpoint, terms, large)
        except Overloaded as error:
            trace.id = asked.get(REQUEST_ID, b"").decode("latin-1")
            now, allowed = self._clock(), terms.deadline - trace.started
            until = now + REPEAT * min(allowed, error.retry_after_s)
            answer = whole_error(error, trace.id)
            return Refusal(until, now - trace.started, error.with_traceback(None), answer)
        except ConvoyError:  # other errors are answered once the body is read
            pass
        return None

    def _start(self, began: float) -> float:
        """When a request's time began: what it waited for a busy event loop counts.

        The loop's own clock stands still for a turn and goes in milliseconds, so only what is longer is a wait.
        """
        now = self._clock()
        return began if now - began > WAIT_SECONDS else now

    def _check_room(self, route: HotRoute, asked: RequestHeaders, trace: Trace) -> None:
        terms = http_terms(self._plane, asked, trace)
        self._plane.check_room(route.endpoint, terms, route.images and carries_large_image(asked))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._routes.get(scope["path"]) if scope["method"] == "POST" else None
        if route is None:
            await self._pages(scope, receive, send)
            return
        endpoint = route.endpoint
        trace = Trace(self._start(scope[BEGAN]))
        asked = dict(scope["headers"])
        status, reason, holder = 500, FAULT, None  # until it is answered
        self._in_flight[0] += 1
        self._plane.in_flight += 1
        try:
            if not self._plane.access.open:
                holder = self._plane.access.enter(shown_key(asked), endpoint.name)
                self._check_room(route, asked, trace)
            body, headers = await route.handler(endpoint, scope, asked, receive, trace)
            if trace.cached:
                headers.append((b"x-cache", b"hit"))
            if trace.arm:
                headers.append((ARM_HEADER, trace.arm.encode()))
            body = await encode_answer(asked, body, headers)
            trace.answered = self._clock()
            if self._plane.draining:
                headers.append((b"connection", b"close"))
            await send_answer(send, 200, body, headers)
            status, reason = 200, ""
        except Exception as error:  # noqa: BLE001 whatever it is, the request has to be answered, counted and logged
            trace.id = trace.id or asked.get(REQUEST_ID, b"").decode("latin-1")
            told = self._plane.record_failure(endpoint, error, trace)
            status, reason = told.http_status, str(told)
            await send_error(send, receive, told, trace.id)
            del told  # or it and this frame keep each other, and a large document, until the garbage collector comes
        else:
            self._plane.record_answer(endpoint, trace)
            self._plane.lag.answered()
        finally:
            if holder is not None:
                holder.leave()
            self._in_flight[0] -= 1
            self._plane.in_flight -= 1
            self._count(endpoint, asked, status, reason, trace)

    def _count(self, endpoint: Endpoint, asked: RequestHeaders, status: int, reason: str, trace: Trace) -> None:
        endpoint.recorder.code("http", str(status))
        if self._plane.observers:
            parent = asked.get(TRACEPARENT, b"").decode("latin-1")
            finished = Finished(
                "http", endpoint.name, endpoint.version, str(status), trace, self._clock(), parent, reason
            )
            self._plane.tell(finished)

    async def _classify(
        self, dialect: Dialect, endpoint: Endpoint, scope: Scope, asked: RequestHeaders, receive: Receive, trace: Trace
    ) -> tuple[bytes, Headers]:
        terms = http_terms(self._plane, asked, trace)
        body = await read_body(asked, receive, self._plane.limits.body_bytes)
        trace.received = self._clock()
        call = await dialect.parse(scope, asked, body, endpoint)
        trace.id = call.options.id or self._plane.new_id()
        watch = scope[WATCH] = Watch()
        if isinstance(endpoint, ExperimentEndpoint):
            caller = http_caller(scope, asked, trace.id, call.fields)
            answers = await endpoint.live.classify(self._plane, call.images, caller, terms, trace, watch)
        else:
            answers = await self._plane.classify(endpoint, call.images, terms, trace, watch)
        document = dialect.render(endpoint, trace.id, answers, call.options, trace, self._clock())
        return document, [(b"content-type", JSON), (REQUEST_ID, trace.id.encode())]

    async def _infer(
        self, endpoint: Endpoint, scope: Scope, asked: RequestHeaders, receive: Receive, trace: Trace
    ) -> tuple[bytes, Headers]:
        body = await read_body(asked, receive, self._plane.limits.body_bytes)
        trace.received = self._clock()
        watch = scope[WATCH] = Watch()
        return await infer_http(self._plane, endpoint, scope, asked, body, trace, watch)


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


class HttpListener:
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
        hot = self.hot = HttpApp(plane, metrics, build_pages(plane, repository, settings, experiments))
        config = uvicorn.Config(
            allow_origins(hot, listen.cors_origins) if listen.cors_origins else hot,
            http=cast(type[asyncio.Protocol], partial(Connection, limits, Room(), hot)),
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
