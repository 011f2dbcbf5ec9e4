"""Requests over HTTP that need no coroutine: tensors whose head and JSON part have come before, and small images."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from convoy.errors import ConvoyError
from convoy.wire.oip_http import HEADER_LENGTH, KEPT_HEAD_BYTES, InferRequest, parse_request, render_response
from convoy.wire.tensors import Tensor
from serve.api.classify_params import DEFAULTS
from serve.api.direct import (
    DirectImage,
    DirectRequest,
    InferPlan,
    PlanCache,
    direct_image,
    plain_logits,
    plain_tensor,
    tensor_rows,
)
from serve.api.infer import check_input
from serve.batching.line import MemberQueue
from serve.batching.results import Answer
from serve.gateway.endpoints import Endpoint, Rows
from serve.gateway.request_context import RequestContext
from serve.gateway.request_tracker import RequestTracker, TrackedRequest
from serve.http.body import Headers, whole_number
from serve.http.caller import HttpCaller
from serve.http.classify import has_small_body, parse_classify
from serve.http.compression import ACCEPT_ENCODING, WORTHWHILE_BYTES, choose_encoding, encode_small
from serve.http.dialects import Dialect
from serve.http.exchange import Reply, ResponseHeaders
from serve.http.request_headers import check_request
from serve.http.responses import CLOSE, JSON, REQUEST_ID, error_response, infer_headers, response_head
from serve.telemetry.request_timings import RequestTimings

if TYPE_CHECKING:
    from serve.http.app import HotRoute

# The id is the server's own, so it needs none of the checks of `response_head`.
IMAGE_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: %b\r\ncontent-length: %d\r\n\r\n%b"
ONLY_PARAMETERS = {"binary_data_output"}


class HttpPlan(InferPlan):
    """What head and JSON part of a request determine.

    Attributes:
        headers: of the response, without the length of its body.
        document: the response's JSON part.
        response: the bytes of a response before its logits.
    """

    __slots__ = ("document", "headers", "response")

    def __init__(
        self, endpoint: Endpoint, queue: MemberQueue, start: int, tensor: Tensor, request: InferRequest
    ) -> None:
        super().__init__(endpoint, queue, start, tensor)
        body, json_bytes = render_response(self.sample(), request)
        self.headers = infer_headers(json_bytes)
        self.document = body[:json_bytes]
        self.response = response_head(200, [*self.headers, (b"content-length", b"%d" % len(body))]) + self.document


class HttpPlans:
    """The plans for the requests with one head, by their JSON part."""

    def __init__(self, endpoint: Endpoint, queue: MemberQueue, headers: Headers) -> None:
        declared = whole_number(headers.get(HEADER_LENGTH.encode(), b"")) or 0
        self._endpoint = endpoint
        self._queue = queue
        self._headers = headers
        self._start = declared if declared <= KEPT_HEAD_BYTES else 0
        self._cache: PlanCache[HttpPlan] = PlanCache()

    def request(self, requests: RequestTracker, reply: Reply, body: bytes, started: float) -> DirectHttpInfer | None:
        """The request with this body, None if it takes the general way."""
        plan = self._find(body)
        return None if plan is None else DirectHttpInfer(requests, plan, reply, self._headers, body, started)

    def _find(self, body: bytes) -> HttpPlan | None:
        start = self._start
        if not start:
            return None
        known = body[:start]
        plan = self._cache.get(known)
        if plan is None:
            plan = self._cache.learn(known, lambda: self._make(body))
        return plan if plan is not None and plan.fits(len(body)) else None

    def _make(self, body: bytes) -> HttpPlan | None:
        try:
            request = parse_request(body, self._start, check=partial(check_input, self._endpoint))
        except ConvoyError:
            return None
        tensor = plain_tensor(self._endpoint, request)
        if tensor is None or not request.binary_output or not ONLY_PARAMETERS.issuperset(request.parameters):
            return None
        plan = HttpPlan(self._endpoint, self._queue, self._start, tensor, request)
        length = len(plan.document) + plan.logits_bytes
        accepted = self._headers.get(ACCEPT_ENCODING)
        compressed = accepted is not None and choose_encoding(accepted, length >= WORTHWHILE_BYTES)
        return None if compressed else plan


class ImageHead:
    """A head of requests whose body is an encoded image, without options."""

    def __init__(self, endpoint: Endpoint, dialect: Dialect, headers: Headers) -> None:
        self._endpoint = endpoint
        self._dialect = dialect
        self._headers = headers

    def request(self, requests: RequestTracker, reply: Reply, body: bytes, started: float) -> DirectHttpImage | None:
        """The request with this body, None if it takes the general way."""
        image = direct_image(requests.plane, self._endpoint, body)
        return None if image is None else DirectHttpImage(requests, image, self._dialect, reply, self._headers, started)


def direct_head(route: HotRoute, headers: Headers) -> HttpPlans | ImageHead | None:
    """Finds the direct requests with this head; None if all of them take the general way."""
    endpoint, dialect = route.endpoint, route.dialect
    queue = endpoint.direct_queue
    if queue is None or REQUEST_ID in headers:
        return None
    if dialect is None:
        return HttpPlans(endpoint, queue, headers)
    if dialect.parse is not parse_classify or not has_small_body(headers):
        return None
    return ImageHead(endpoint, dialect, headers)


class DirectHttpRequest(DirectRequest):
    """A request over HTTP."""

    __slots__ = ("_body", "_connection", "_headers")
    may_send_interim = True

    def __init__(
        self,
        requests: RequestTracker,
        endpoint: Endpoint,
        queue: MemberQueue,
        connection: Reply,
        headers: Headers,
        body: bytes,
        started: float,
    ) -> None:
        """`started`: monotonic time at which the request's time limit starts."""
        context = RequestContext(
            RequestTimings(started), requests.plane.deadline(started, None), HttpCaller(connection.client, headers)
        )
        super().__init__(TrackedRequest(requests, context, endpoint), queue)
        self._connection = connection
        self._headers = headers
        self._body = body

    def check(self) -> None:
        endpoint = self.tracked.endpoint
        assert endpoint is not None
        check_request(self.tracked, endpoint, self._headers, images=False)

    def send(self, headers: ResponseHeaders, body: bytes) -> None:
        """Answers with 200."""
        draining = self.tracked.plane.draining
        self._connection.respond(200, [*headers, CLOSE] if draining else headers, body)

    def refuse(self, error: ConvoyError) -> None:
        self._connection.respond(*error_response(error, self.tracked.context.request_id))

    def fail(self, fault: Exception) -> None:
        self._connection.fail(fault)

    def disconnect(self) -> None:
        """The client has gone: ends the wait for the model."""
        self.tracked.context.cancel()

    def cancel(self) -> None:
        """Ends the wait for the model."""
        self.disconnect()


class DirectHttpInfer(DirectHttpRequest):
    """A tensor."""

    __slots__ = ("_plan",)

    def __init__(
        self, requests: RequestTracker, plan: HttpPlan, connection: Reply, headers: Headers, body: bytes, started: float
    ) -> None:
        super().__init__(requests, plan.endpoint, plan.queue, connection, headers, body, started)
        self._plan = plan

    def rows(self) -> Rows:
        body, self._body = self._body, b""
        self.admit(self._plan.shape[0])
        return tensor_rows(self._plan, body)

    def reply(self, answer: Answer) -> None:
        connection, plan = self._connection, self._plan
        logits = plain_logits(plan, answer)
        self.tracked.context.timings.answered = time.monotonic()
        if self.tracked.plane.draining or connection.closes:
            self.send(plan.headers, plan.document + logits)
        else:
            connection.send(plan.response + logits, keep_alive=True)


class DirectHttpImage(DirectHttpRequest):
    """An image."""

    __slots__ = ("_dialect", "_image")

    def __init__(
        self,
        requests: RequestTracker,
        image: DirectImage,
        dialect: Dialect,
        connection: Reply,
        headers: Headers,
        started: float,
    ) -> None:
        super().__init__(requests, image.endpoint, image.queue, connection, headers, b"", started)
        self._image = image
        self._dialect = dialect

    def rows(self) -> Rows:
        self.tracked.context.request_id = self.tracked.plane.new_id()
        self.admit(1)
        return self._image.row()

    def reply(self, answer: Answer) -> None:
        context = self.tracked.context
        timings, identifier = context.timings, context.request_id
        document = self._dialect.render(
            self._image.endpoint, identifier, (answer,), DEFAULTS, timings, time.monotonic()
        )
        if ACCEPT_ENCODING in self._headers or self.tracked.plane.draining or self._connection.closes:
            headers = [(b"content-type", JSON), (REQUEST_ID, identifier.encode())]
            document = encode_small(self._headers, document, headers)
            timings.answered = time.monotonic()
            self.send(headers, document)
        else:
            timings.answered = time.monotonic()
            self._connection.send(IMAGE_ANSWER % (identifier.encode(), len(document), document), keep_alive=True)
