"""The ASGI application of a gateway: requests to models here, everything else in the Starlette routes."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple, cast

from starlette.types import ASGIApp

from convoy.errors import ConvoyError, Overloaded
from serve.experiments.caller import ARM_HEADER
from serve.gateway.dataplane import DataPlane
from serve.gateway.endpoints import Endpoint
from serve.gateway.request_context import RequestContext
from serve.gateway.request_tracker import RequestTracker, WireProtocol
from serve.http.auth import shown_key
from serve.http.body import Headers as RequestHeaders
from serve.http.body import Receive, Scope, Send, read_body
from serve.http.caller import HttpCaller, RequestScope
from serve.http.classify import carries_large_image
from serve.http.compression import encode_answer
from serve.http.dialects import DIALECTS, Dialect
from serve.http.infer import infer_http
from serve.http.request_headers import PRIORITY_HEADER, TIMEOUT_HEADER, apply_headers
from serve.http.responses import JSON, REQUEST_ID, Headers, send_answer, send_error, whole_error
from serve.telemetry.recorder import Metrics
from serve.telemetry.request_timings import RequestTimings

HTTP = WireProtocol("http", "200", "500", lambda error: str(error.http_status))

ORIGIN = b"origin"  # sent by a browser's script, whose answer gets more headers from CORSMiddleware
WAIT_SECONDS = 0.002  # a shorter time between a request's first byte and its task is noise of the loop's clock
REUSE_SHARE = (
    0.02  # of a refused request's estimated wait or time limit: for so long its refusal answers equal requests
)
MOST_REFUSALS = 64  # kept at a time: one for each model, deadline, priority and kind of body


Handler = Callable[[Endpoint, Scope, RequestHeaders, Receive, RequestContext], Awaitable[tuple[bytes, Headers]]]


class Refusal(NamedTuple):
    """The answer to a request that would be late, and until when equal requests get the same one.

    `used`: seconds of the request's time limit that had passed. A request that has used less of it, by more than
    WAIT_SECONDS, might still be in time.
    """

    until: float
    used: float
    error: Overloaded
    answer: bytes


class HotRoute(NamedTuple):
    """What serves a path. `images`: the body may be a single encoded image."""

    endpoint: Endpoint
    handler: Handler
    images: bool


class HttpApp:
    """ASGI application of a gateway: model requests are handled here, all others by `pages`."""

    def __init__(self, plane: DataPlane, metrics: Metrics, pages: ASGIApp) -> None:
        self._plane = plane
        self._pages = pages
        self._clock = time.monotonic
        self._requests = RequestTracker(plane, metrics, HTTP)
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
        """The complete HTTP answer to a request that would be late whatever its body is; None where the body is to be read.

        Under overload most requests end here, so this starts no task and keeps no body, and a refusal is reused for a
        while for requests with the same URL, time limit and priority.

        Args:
            url: one for which `is_hot` is true.
            asked: the request's headers.
            began: when its first byte was seen, in the event loop's time.
        """
        if not self._plane.access.open or self._plane.draining or ORIGIN in asked:
            return None
        route = self._routes[url.decode()]
        context = RequestContext(RequestTimings(self._start(began)))
        large = route.images and carries_large_image(asked)
        key = (url, asked.get(TIMEOUT_HEADER), asked.get(PRIORITY_HEADER), large)
        refusal = self._refusals.get(key)
        now = self._clock()
        if (
            refusal is None
            or now > refusal.until
            or now - context.timings.started < refusal.used - WAIT_SECONDS
            or REQUEST_ID in asked
        ):
            refusal = self._judge(route.endpoint, asked, context, large)
            if refusal is None:
                self._plane.lag.admitted()
                return None
            if REQUEST_ID not in asked:
                if len(self._refusals) == MOST_REFUSALS:
                    self._refusals.clear()
                self._refusals[key] = refusal
        context.caller = HttpCaller(None, asked)  # for a trace
        self._requests.refused(context, route.endpoint, refusal.error)
        return refusal.answer

    def _judge(self, endpoint: Endpoint, asked: RequestHeaders, context: RequestContext, large: bool) -> Refusal | None:
        """The refusal of a request that would be late, else None."""
        try:
            apply_headers(self._plane, asked, context)
            self._plane.check_room(endpoint, context, large)
        except Overloaded as error:
            context.request_id = asked.get(REQUEST_ID, b"").decode("latin-1")
            now, started = self._clock(), context.timings.started
            until = now + REUSE_SHARE * min(context.deadline - started, error.retry_after_s)
            answer = whole_error(error, context.request_id)
            return Refusal(until, now - started, error.with_traceback(None), answer)
        except ConvoyError:  # for example a malformed header: answered once the body is read
            pass
        return None

    def _start(self, began: float) -> float:
        """The start of a request's time: waiting for a busy event loop counts.

        The loop's clock only advances between its turns, so only a difference above WAIT_SECONDS is a real wait.
        """
        now = self._clock()
        return began if now - began > WAIT_SECONDS else now

    def _check_room(self, route: HotRoute, asked: RequestHeaders, context: RequestContext) -> None:
        apply_headers(self._plane, asked, context)
        self._plane.check_room(route.endpoint, context, route.images and carries_large_image(asked))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._routes.get(scope["path"]) if scope["method"] == "POST" else None
        if route is None:
            await self._pages(scope, receive, send)
            return
        endpoint, asked = route.endpoint, dict(scope["headers"])
        request = cast(RequestScope, scope)
        timings = RequestTimings(self._start(request.began))
        context = request.context = RequestContext(timings, HttpCaller(scope.get("client"), asked))
        with self._requests.track(context, endpoint) as tracked:
            try:
                if not self._plane.access.open:
                    tracked.authorize(shown_key(asked), endpoint.name)
                    self._check_room(route, asked, context)
                body, headers = await route.handler(endpoint, scope, asked, receive, context)
                if timings.cached:
                    headers.append((b"x-cache", b"hit"))
                if timings.arm:
                    headers.append((ARM_HEADER, timings.arm.encode()))
                body = await encode_answer(asked, body, headers)
                timings.answered = self._clock()
                if self._plane.draining:
                    headers.append((b"connection", b"close"))
                await send_answer(send, 200, body, headers)
            except Exception as error:  # noqa: BLE001 every request has to be answered, counted and logged
                context.request_id = context.request_id or asked.get(REQUEST_ID, b"").decode("latin-1")
                shown = tracked.failed(error)
                await send_error(send, receive, shown, context.request_id)
                # Error and frame would refer to each other, and keep a large document until the garbage collector comes.
                del shown
            else:
                tracked.answered()
                self._plane.lag.answered()

    async def _classify(
        self,
        dialect: Dialect,
        endpoint: Endpoint,
        scope: Scope,
        asked: RequestHeaders,
        receive: Receive,
        context: RequestContext,
    ) -> tuple[bytes, Headers]:
        apply_headers(self._plane, asked, context)
        body = await read_body(asked, receive, self._plane.limits.body_bytes)
        timings = context.timings
        timings.received = self._clock()
        call = await dialect.parse(scope, asked, body, endpoint)
        identifier = context.request_id = call.options.id or self._plane.new_id()
        context.fields = call.fields
        answers = await endpoint.answer(context, partial(self._plane.classify, images=call.images))
        document = dialect.render(endpoint, identifier, answers, call.options, timings, self._clock())
        return document, [(b"content-type", JSON), (REQUEST_ID, identifier.encode())]

    async def _infer(
        self, endpoint: Endpoint, scope: Scope, asked: RequestHeaders, receive: Receive, context: RequestContext
    ) -> tuple[bytes, Headers]:
        body = await read_body(asked, receive, self._plane.limits.body_bytes)
        context.timings.received = self._clock()
        return await infer_http(self._plane, endpoint, context, asked, body)
