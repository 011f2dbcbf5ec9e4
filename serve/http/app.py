"""The ASGI application of a gateway. It handles requests to models itself and passes all others to the Starlette routes."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple, cast

from starlette.types import ASGIApp

from convoy.errors import Overloaded
from serve.experiments.caller import ARM_HEADER
from serve.gateway.dataplane import DataPlane
from serve.gateway.endpoints import Endpoint
from serve.gateway.request_context import RequestContext
from serve.gateway.request_tracker import RequestTracker, TrackedRequest, WireProtocol
from serve.http.body import Headers as RequestHeaders
from serve.http.body import Receive, Scope, Send, UnreadBody
from serve.http.caller import HttpCaller, RequestScope
from serve.http.classify import carries_large_image
from serve.http.compression import ACCEPT_ENCODING, encode_answer
from serve.http.dialects import DIALECTS, Dialect
from serve.http.direct import DirectHttpRequest, HttpPlans, ImageHead, direct_head
from serve.http.exchange import AsgiExchange, Exchange, Reply
from serve.http.http1.head import KNOWN_HEADS, Head
from serve.http.infer import infer_http
from serve.http.request_headers import PRIORITY_HEADER, TIMEOUT_HEADER, apply_headers, check_request
from serve.http.responses import CLOSE, JSON, REQUEST_ID, Headers, error_response, whole_error
from serve.telemetry.request_timings import RequestTimings

HTTP = WireProtocol("http", "200", "500", lambda error: str(error.http_status))

WAIT_SECONDS = 0.002  # a shorter wait between a request's first byte and its task is noise: the loop's clock is coarse
# Share of a refused request's remaining time limit or `retry_after_s`, the shorter one, for which equal requests get its refusal.
REUSE_SHARE = 0.02
SMALL_DIGITS = 4  # of the length of a body that is no large image, see `carries_large_image`
MOST_HEADS = 2 * KNOWN_HEADS  # in `_direct`, with those that were displaced
MOST_REFUSALS = 64  # cached refusals: one per URL, time limit, priority and size class of the body

Handler = Callable[[Endpoint, Exchange, bytes, RequestContext], Awaitable[tuple[bytes, Headers]]]


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
    """The endpoint and handler of a path. `dialect`: None for infer; else the body may be a single encoded image."""

    endpoint: Endpoint
    handler: Handler
    dialect: Dialect | None


class HttpApp:
    """ASGI application of a gateway: model requests are handled here, all others by `pages`."""

    def __init__(self, plane: DataPlane, requests: RequestTracker, pages: ASGIApp) -> None:
        self._plane = plane
        self._pages = pages
        self._clock = time.monotonic
        self._requests = requests
        self._routes: dict[bytes, HotRoute] = {}
        self._direct: dict[Head, HttpPlans | ImageHead | None] = {}
        self._refusals: dict[tuple[bytes, bytes | None, bytes | None, bool], Refusal] = {}
        plane.on_change.append(self._map_routes)
        self._map_routes()

    def _map_routes(self) -> None:
        routes: dict[bytes, HotRoute] = {}
        for endpoint in self._plane.endpoints.by_name.values():
            for dialect in DIALECTS:
                for path in dialect.paths:
                    handler = partial(self._classify, dialect)
                    routes[path.format(endpoint.name, endpoint.version).encode()] = HotRoute(endpoint, handler, dialect)
            for version in ("", f"/versions/{endpoint.version}"):
                routes[f"/v2/models/{endpoint.name}{version}/infer".encode()] = HotRoute(endpoint, self._infer, None)
        self._routes = routes
        self._direct.clear()
        self._refusals.clear()

    def is_hot(self, target: bytes) -> bool:
        """Whether a POST to exactly this target goes to a model."""
        return target in self._routes

    def refuse(self, target: bytes, request_headers: RequestHeaders, began: float) -> bytes | None:
        """Checks admission before the body is read.

        Returns the complete HTTP response to a request that would miss its deadline, or None if the body must be read. Under
        overload most requests end here, so this starts no task and keeps no body, and requests with the same URL, time limit
        and priority get the same refusal for a short time.

        Args:
            target: a target for which `is_hot` is true.
            request_headers: names in lower case.
            began: time of the request's first byte, on the event loop's clock.
        """
        if not self._plane.access.open or self._plane.draining:
            return None
        route = self._routes[target]
        has_time = self._plane.has_time(route.endpoint)
        if has_time and len(request_headers.get(b"content-length", b"")) <= SMALL_DIGITS:
            return None  # admission decides, before the rows are queued
        large = route.dialect is not None and carries_large_image(request_headers)
        if has_time and not large:
            return None
        started = self._start(began)
        context = RequestContext(RequestTimings(started), self._plane.deadline(started, None))
        key = (target, request_headers.get(TIMEOUT_HEADER), request_headers.get(PRIORITY_HEADER), large)
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
        except Exception:  # noqa: BLE001 for example a malformed header: the handler answers it after reading the body
            pass
        return None

    def _start(self, began: float) -> float:
        """The time at which a request's time limit starts. It includes the wait for a busy event loop.

        The loop's clock only advances between iterations, so only a difference above WAIT_SECONDS is a real wait.
        """
        now = self._clock()
        return began if now - began > WAIT_SECONDS else now

    def direct(self, reply: Reply, head: Head, body: bytes, began: float) -> DirectHttpRequest | None:
        """A plain request to a model that needs no coroutine, not yet started; None for all others.

        `began`: time of the request's first byte, on the event loop's clock.
        """
        if not head.known:
            return None
        found = self._direct[head] if head in self._direct else self._look_at(head)
        if found is None or reply.flow.write_paused:
            return None
        return found.request(self._requests, reply, body, self._start(began))

    def _look_at(self, head: Head) -> HttpPlans | ImageHead | None:
        if len(self._direct) >= MOST_HEADS:
            self._direct.clear()
        found = self._direct[head] = direct_head(self._routes[head.target], head.headers)
        return found

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry point: inference requests are answered here, all others by the cold routes."""
        target = scope["path"].encode() if scope["method"] == "POST" else b""
        if target not in self._routes:
            await self._pages(scope, receive, send)
            return
        exchange = AsgiExchange(cast(RequestScope, scope), receive, send)
        await self.answer(target, exchange)

    async def answer(self, target: bytes, exchange: Exchange) -> None:
        """Answers a POST to a target for which `is_hot` is true."""
        route, headers = self._routes[target], exchange.headers
        endpoint = route.endpoint
        timings = RequestTimings(self._start(exchange.began))
        longest = self._plane.deadline(timings.started, None)
        context = exchange.context = RequestContext(timings, longest, HttpCaller(exchange.client, headers))
        with self._requests.track(context, endpoint) as tracked:
            try:
                check_request(tracked, endpoint, headers, images=route.dialect is not None)
                body = await exchange.read_body(self._plane.limits.body_bytes)
                timings.received = self._clock()
                document, answer_headers = await route.handler(endpoint, exchange, body, context)
                if timings.cached:
                    answer_headers.append((b"x-cache", b"hit"))
                if timings.arm:
                    answer_headers.append((ARM_HEADER, timings.arm.encode()))
                if ACCEPT_ENCODING in headers:
                    document = await encode_answer(headers, document, answer_headers)
                timings.answered = self._clock()
                if self._plane.draining:
                    answer_headers.append(CLOSE)
                await exchange.respond(200, answer_headers, document)
            except Exception as error:  # noqa: BLE001 every request has to be answered, counted and logged
                await self._answer_error(exchange, context, tracked, error)
            else:
                tracked.answered()
        # An idle connection keeps its last scope, and the fields of a context may be as large as a body.
        exchange.context = None

    async def _answer_error(
        self, exchange: Exchange, context: RequestContext, tracked: TrackedRequest, error: Exception
    ) -> None:
        context.request_id = context.request_id or exchange.headers.get(REQUEST_ID, b"").decode("latin-1")
        shown = tracked.failed(error)
        respond = exchange.refuse_unread if isinstance(shown, UnreadBody) else exchange.respond
        try:
            await respond(*error_response(shown, context.request_id))
        except BaseException:
            tracked.lost()
            raise

    async def _classify(
        self, dialect: Dialect, endpoint: Endpoint, exchange: Exchange, body: bytes, context: RequestContext
    ) -> tuple[bytes, Headers]:
        timings = context.timings
        call = await dialect.parse(exchange.query, exchange.headers, body, endpoint)
        identifier = context.request_id = call.options.id or self._plane.new_id()
        context.fields = call.fields
        answers = await endpoint.answer(context, partial(self._plane.classify, images=call.images))
        document = dialect.render(endpoint, identifier, answers, call.options, timings, self._clock())
        return document, [(b"content-type", JSON), (REQUEST_ID, identifier.encode())]

    async def _infer(
        self, endpoint: Endpoint, exchange: Exchange, body: bytes, context: RequestContext
    ) -> tuple[bytes, Headers]:
        return await infer_http(self._plane, endpoint, context, exchange.headers, body)
