"""The ASGI application of a gateway. It handles requests to models itself and passes all others to the Starlette routes."""

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

ORIGIN = b"origin"  # sent by browsers' scripts; CORSMiddleware adds headers to their responses
WAIT_SECONDS = 0.002  # a shorter wait between a request's first byte and its task is noise: the loop's clock is coarse
# Share of a refused request's remaining time limit or `retry_after_s`, the shorter one, for which equal requests get its refusal.
REUSE_SHARE = 0.02
MOST_REFUSALS = 64  # cached refusals: one per URL, time limit, priority and size class of the body

Handler = Callable[[Endpoint, Scope, RequestHeaders, Receive, RequestContext], Awaitable[tuple[bytes, Headers]]]


class Refusal(NamedTuple):
    """The cached response to a request that would miss its deadline. Equal requests get it until the time `until`.

    `used`: seconds of the request's time limit that had passed. It does not apply to a request that has used less by more than
    WAIT_SECONDS, since that one may still meet its deadline.
    """

    until: float
    used: float
    error: Overloaded
    answer: bytes


class HotRoute(NamedTuple):
    """The endpoint and handler of a path. `images`: the body may be a single encoded image."""

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

    def refuse(self, url: bytes, request_headers: RequestHeaders, began: float) -> bytes | None:
        """Checks admission before the body is read.

        Returns the complete HTTP response to a request that would miss its deadline, or None if the body must be read. Under
        overload most requests end here, so this starts no task and keeps no body, and requests with the same URL, time limit
        and priority get the same refusal for a short time.

        Args:
            url: a URL for which `is_hot` is true.
            request_headers: names in lower case.
            began: time of the request's first byte, on the event loop's clock.
        """
        if not self._plane.access.open or self._plane.draining or ORIGIN in request_headers:
            return None
        route = self._routes[url.decode()]
        started = self._start(began)
        context = RequestContext(RequestTimings(started), self._plane.deadline(started, None))
        large = route.images and carries_large_image(request_headers)
        key = (url, request_headers.get(TIMEOUT_HEADER), request_headers.get(PRIORITY_HEADER), large)
        refusal = self._refusals.get(key)
        now = self._clock()
        if (
            refusal is None
            or now > refusal.until
            or now - context.timings.started < refusal.used - WAIT_SECONDS
            or REQUEST_ID in request_headers
        ):
            refusal = self._check_admission(route.endpoint, request_headers, context, large)
            if refusal is None:
                self._plane.lag.admitted()
                return None
            if REQUEST_ID not in request_headers:
                if len(self._refusals) == MOST_REFUSALS:
                    self._refusals.clear()
                self._refusals[key] = refusal
        context.caller = HttpCaller(None, request_headers)  # traces read its headers
        self._requests.refused(context, route.endpoint, refusal.error)
        return refusal.answer

    def _check_admission(
        self, endpoint: Endpoint, request_headers: RequestHeaders, context: RequestContext, large: bool
    ) -> Refusal | None:
        """The refusal of a request that would miss its deadline, else None."""
        try:
            apply_headers(self._plane, request_headers, context)
            self._plane.check_room(endpoint, context, large)
        except Overloaded as error:
            context.request_id = request_headers.get(REQUEST_ID, b"").decode("latin-1")
            now, started = self._clock(), context.timings.started
            until = now + REUSE_SHARE * min(context.deadline - started, error.retry_after_s)
            answer = whole_error(error, context.request_id)
            return Refusal(until, now - started, error.with_traceback(None), answer)
        except ConvoyError:  # for example a malformed header: the handler answers it after reading the body
            pass
        return None

    def _start(self, began: float) -> float:
        """The time at which a request's time limit starts. It includes the wait for a busy event loop.

        The loop's clock only advances between iterations, so only a difference above WAIT_SECONDS is a real wait.
        """
        now = self._clock()
        return began if now - began > WAIT_SECONDS else now

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry point: inference requests are answered here, all others by the cold routes."""
        route = self._routes.get(scope["path"]) if scope["method"] == "POST" else None
        if route is None:
            await self._pages(scope, receive, send)
            return
        endpoint, request_headers = route.endpoint, dict(scope["headers"])
        request = cast(RequestScope, scope)
        timings = RequestTimings(self._start(request.began))
        longest = self._plane.deadline(timings.started, None)
        context = request.context = RequestContext(timings, longest, HttpCaller(scope.get("client"), request_headers))
        with self._requests.track(context, endpoint) as tracked:
            try:
                if not self._plane.access.open:
                    tracked.authorize(shown_key(request_headers), endpoint.name)
                apply_headers(self._plane, request_headers, context)
                if not self._plane.access.open:  # with open access `refuse` does this, before the body is read
                    large = route.images and carries_large_image(request_headers)
                    self._plane.check_room(endpoint, context, large)
                body, headers = await route.handler(endpoint, scope, request_headers, receive, context)
                if timings.cached:
                    headers.append((b"x-cache", b"hit"))
                if timings.arm:
                    headers.append((ARM_HEADER, timings.arm.encode()))
                body = await encode_answer(request_headers, body, headers)
                timings.answered = self._clock()
                if self._plane.draining:
                    headers.append((b"connection", b"close"))
                await send_answer(send, 200, body, headers)
            except Exception as error:  # noqa: BLE001 every request has to be answered, counted and logged
                context.request_id = context.request_id or request_headers.get(REQUEST_ID, b"").decode("latin-1")
                shown = tracked.failed(error)
                await send_error(send, receive, shown, context.request_id)
                # Error and frame would refer to each other, and keep a large document in memory until garbage collection.
                del shown
            else:
                tracked.answered()
                self._plane.lag.answered()
        # An idle connection keeps its last scope, and the fields of a context may be as large as a body.
        request.context = None

    async def _classify(
        self,
        dialect: Dialect,
        endpoint: Endpoint,
        scope: Scope,
        request_headers: RequestHeaders,
        receive: Receive,
        context: RequestContext,
    ) -> tuple[bytes, Headers]:
        body = await read_body(request_headers, receive, self._plane.limits.body_bytes)
        timings = context.timings
        timings.received = self._clock()
        call = await dialect.parse(scope, request_headers, body, endpoint)
        identifier = context.request_id = call.options.id or self._plane.new_id()
        context.fields = call.fields
        answers = await endpoint.answer(context, partial(self._plane.classify, images=call.images))
        document = dialect.render(endpoint, identifier, answers, call.options, timings, self._clock())
        return document, [(b"content-type", JSON), (REQUEST_ID, identifier.encode())]

    async def _infer(
        self,
        endpoint: Endpoint,
        scope: Scope,
        request_headers: RequestHeaders,
        receive: Receive,
        context: RequestContext,
    ) -> tuple[bytes, Headers]:
        body = await read_body(request_headers, receive, self._plane.limits.body_bytes)
        context.timings.received = self._clock()
        return await infer_http(self._plane, endpoint, context, request_headers, body)
