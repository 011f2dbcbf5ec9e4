"""Infer requests over HTTP that need no coroutine: their head and the JSON part of their body have come before."""

from __future__ import annotations

from convoy.errors import ConvoyError
from convoy.wire.oip_http import HEADER_LENGTH, KEPT_HEAD_BYTES, InferRequest, parse_request, render_response
from convoy.wire.tensors import Tensor
from serve.api.direct_infer import DirectInfer, InferPlan, PlanCache, plain_tensor
from serve.batching.line import MemberQueue
from serve.gateway.endpoints import Endpoint
from serve.gateway.request_context import RequestContext
from serve.gateway.request_tracker import RequestTracker, TrackedRequest
from serve.http.body import Headers, whole_number
from serve.http.caller import HttpCaller
from serve.http.compression import ACCEPT_ENCODING, WORTHWHILE_BYTES, choose_encoding
from serve.http.exchange import Reply
from serve.http.request_headers import check_request
from serve.http.responses import CLOSE, REQUEST_ID, error_response, infer_headers, response_head
from serve.telemetry.request_timings import RequestTimings

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
        self._start = declared if declared <= KEPT_HEAD_BYTES and REQUEST_ID not in headers else 0
        self._cache: PlanCache[HttpPlan] = PlanCache()

    def find(self, body: bytes) -> HttpPlan | None:
        """The plan for a request with this body, None if it must be parsed."""
        start = self._start
        if not start:
            return None
        known = body[:start]
        plan = self._cache.get(known)
        if plan is None:
            return self._cache.learn(known, lambda: self._make(body))
        return plan if len(body) - start == plan.size else None

    def _make(self, body: bytes) -> HttpPlan | None:
        try:
            request = parse_request(body, self._start)
        except ConvoyError:
            return None
        tensor = plain_tensor(self._endpoint, self._queue, request)
        if tensor is None or not request.binary_output or not ONLY_PARAMETERS.issuperset(request.parameters):
            return None
        plan = HttpPlan(self._endpoint, self._queue, self._start, tensor, request)
        length = len(plan.document) + plan.logits_bytes
        accepted = self._headers.get(ACCEPT_ENCODING)
        compressed = accepted is not None and choose_encoding(accepted, length >= WORTHWHILE_BYTES)
        return None if compressed else plan


class DirectHttpInfer(DirectInfer):
    """A request over HTTP."""

    __slots__ = ("_connection", "_headers", "_http_plan")
    may_send_interim = True

    def __init__(
        self, requests: RequestTracker, plan: HttpPlan, connection: Reply, headers: Headers, body: bytes, started: float
    ) -> None:
        """`started`: monotonic time at which the request's time limit starts."""
        context = RequestContext(
            RequestTimings(started), requests.plane.deadline(started, None), HttpCaller(connection.client, headers)
        )
        super().__init__(TrackedRequest(requests, context, plan.endpoint), plan, body)
        self._http_plan = plan
        self._connection = connection
        self._headers = headers

    def check(self) -> None:
        check_request(self.tracked, self._http_plan.endpoint, self._headers, large=False)

    def reply(self, logits: bytes) -> None:
        connection, plan = self._connection, self._http_plan
        if self.tracked.plane.draining or connection.closes:
            connection.respond(200, [*plan.headers, CLOSE], plan.document + logits)
        else:
            connection.send(plan.response + logits, keep_alive=True)

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
