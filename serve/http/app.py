"""The ASGI application of a gateway: requests to models here, everything else in the Starlette routes."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple

from starlette.types import ASGIApp

from convoy.errors import ConvoyError, Overloaded
from serve.experiments.caller import ARM_HEADER
from serve.experiments.endpoint import ExperimentEndpoint
from serve.gateway.dataplane import DataPlane, Watch
from serve.gateway.endpoints import Endpoint
from serve.http.auth import shown_key
from serve.http.body import Headers as RequestHeaders
from serve.http.body import Receive, Scope, Send, read_body
from serve.http.caller import http_caller
from serve.http.classify import carries_large_image
from serve.http.compression import encode_answer
from serve.http.connection import BEGAN, WATCH
from serve.http.dialects import DIALECTS, Dialect
from serve.http.infer import infer_http
from serve.http.request_headers import PRIORITY_HEADER, TIMEOUT_HEADER, http_terms
from serve.http.responses import JSON, REQUEST_ID, Headers, send_answer, send_error, whole_error
from serve.telemetry.definitions import IN_FLIGHT
from serve.telemetry.recorder import Metrics
from serve.telemetry.request_events import FAULT, RequestEvent
from serve.telemetry.request_timings import RequestTimings

TRACEPARENT = b"traceparent"
ORIGIN = b"origin"  # of a script, for which CORSMiddleware adds to the answer
WAIT_SECONDS = 0.002
REPEAT = 0.02  # of what a refused request would wait, or may take: for so long its refusal holds for the next ones
MOST_REFUSALS = 64  # that are kept: of as many models, deadlines and priorities


Handler = Callable[[Endpoint, Scope, RequestHeaders, Receive, RequestTimings], Awaitable[tuple[bytes, Headers]]]


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
        route, trace = self._routes[url.decode()], RequestTimings(self._start(began))
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

    def _judge(self, endpoint: Endpoint, asked: RequestHeaders, trace: RequestTimings, large: bool) -> Refusal | None:
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

    def _check_room(self, route: HotRoute, asked: RequestHeaders, trace: RequestTimings) -> None:
        terms = http_terms(self._plane, asked, trace)
        self._plane.check_room(route.endpoint, terms, route.images and carries_large_image(asked))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._routes.get(scope["path"]) if scope["method"] == "POST" else None
        if route is None:
            await self._pages(scope, receive, send)
            return
        endpoint = route.endpoint
        trace = RequestTimings(self._start(scope[BEGAN]))
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

    def _count(
        self, endpoint: Endpoint, asked: RequestHeaders, status: int, reason: str, trace: RequestTimings
    ) -> None:
        endpoint.recorder.code("http", str(status))
        if self._plane.observers:
            parent = asked.get(TRACEPARENT, b"").decode("latin-1")
            finished = RequestEvent(
                "http", endpoint.name, endpoint.version, str(status), trace, self._clock(), parent, reason
            )
            self._plane.tell(finished)

    async def _classify(
        self,
        dialect: Dialect,
        endpoint: Endpoint,
        scope: Scope,
        asked: RequestHeaders,
        receive: Receive,
        trace: RequestTimings,
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
        self, endpoint: Endpoint, scope: Scope, asked: RequestHeaders, receive: Receive, trace: RequestTimings
    ) -> tuple[bytes, Headers]:
        body = await read_body(asked, receive, self._plane.limits.body_bytes)
        trace.received = self._clock()
        watch = scope[WATCH] = Watch()
        return await infer_http(self._plane, endpoint, scope, asked, body, trace, watch)
