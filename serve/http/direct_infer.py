"""Infer requests whose single tensor is plain numbers, answered over HTTP without a coroutine.

The requests of one client mostly differ only in the numbers: head and JSON part are the same bytes. From these two follows
everything but the logits, so it is found out once. The connection then puts the rows in line, and the batch that ran them
calls back. The meaning is that of `HttpApp.answer`, which answers all other requests.
"""

from __future__ import annotations

import time

import numpy as np

from convoy.errors import ConvoyError, EngineFailed
from convoy.wire.oip_http import (
    HEADER_LENGTH,
    KEPT_HEAD_BYTES,
    InferRequest,
    InferResponse,
    parse_request,
    render_response,
)
from convoy.wire.tensors import BYTES, DTYPES, Tensor
from serve.api.infer import OUTPUT, check_input
from serve.batching.line import MemberQueue
from serve.batching.queue_item import QueueItem
from serve.batching.results import Answer
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

MOST_PLANS = 64  # JSON parts per head
ONLY_PARAMETERS = {"binary_data_output"}


class InferPlan:
    """What head and JSON part of a request determine.

    Attributes:
        endpoint: the model.
        start: offset of the tensor in the body.
        size: bytes of the tensor.
        dtype: of the tensor.
        shape: of the tensor, [rows, …].
        headers: of the response, without the length of its body.
        document: the response's JSON part.
        response: the bytes of a response before its logits.
        logits_bytes: bytes of the logits [rows, classes].
        queue: the model's.
    """

    __slots__ = (
        "document", "dtype", "endpoint", "headers", "logits_bytes", "queue", "response", "shape", "size", "start",
    )  # fmt: skip

    def __init__(self, endpoint: Endpoint, queue: MemberQueue, start: int, request: InferRequest) -> None:
        (tensor,) = request.inputs
        self.endpoint = endpoint
        self.queue = queue
        self.start = start
        self.dtype = DTYPES[tensor.datatype]
        self.shape = tensor.shape
        self.size = tensor.array.nbytes
        logits = np.zeros((tensor.shape[0], len(endpoint.labels)), np.float32)
        output = Tensor(OUTPUT, "FP32", logits.shape, logits)
        body, json_bytes = render_response(InferResponse(endpoint.name, endpoint.version, "", (output,)), request)
        self.headers = infer_headers(json_bytes)
        self.document = body[:json_bytes]
        self.response = response_head(200, [*self.headers, (b"content-length", b"%d" % len(body))]) + self.document
        self.logits_bytes = logits.nbytes


class Plans:
    """The plans for the requests with one head, by their JSON part."""

    def __init__(self, endpoint: Endpoint, queue: MemberQueue, headers: Headers) -> None:
        declared = whole_number(headers.get(HEADER_LENGTH.encode(), b"")) or 0
        self._endpoint = endpoint
        self._queue = queue
        self._headers = headers
        self._start = declared if declared <= KEPT_HEAD_BYTES and REQUEST_ID not in headers else 0
        self._plans: dict[bytes, InferPlan | None] = {}
        self._once: set[bytes] = set()  # JSON parts that came once: a part with an id never comes again

    def find(self, body: bytes) -> InferPlan | None:
        """The plan for a request with this body, None if it must be parsed."""
        start = self._start
        if not start:
            return None
        text = body[:start]
        plan = self._plans.get(text)
        if plan is None:
            return self._learn(text, body)
        return plan if len(body) - start == plan.size else None

    def _learn(self, text: bytes, body: bytes) -> InferPlan | None:
        if text in self._plans:
            return None
        if text not in self._once:
            if len(self._once) >= MOST_PLANS:
                self._once.clear()
            self._once.add(text)
            return None
        if len(self._plans) >= MOST_PLANS:
            self._plans.clear()
        plan = self._plans[text] = self._make(body)
        return plan

    def _make(self, body: bytes) -> InferPlan | None:
        endpoint = self._endpoint
        try:
            request = parse_request(body, self._start)
            (tensor,) = request.inputs
            check_input(endpoint, tensor.name, tensor.datatype, tensor.shape)
        except (ConvoyError, ValueError):  # the general path answers it with the error
            return None
        rows = tensor.shape[0]
        has_options = request.outputs or request.id or not ONLY_PARAMETERS.issuperset(request.parameters)
        if tensor.datatype == BYTES or not request.binary_output or has_options or rows > self._queue.limits.batch:
            return None
        plan = InferPlan(endpoint, self._queue, self._start, request)
        length = len(plan.document) + plan.logits_bytes
        accepted = self._headers.get(ACCEPT_ENCODING)
        compressed = accepted is not None and choose_encoding(accepted, length >= WORTHWHILE_BYTES)
        return None if compressed else plan


class DirectInfer:
    """One request with a plan. Its body has arrived."""

    __slots__ = ("_body", "_connection", "_headers", "_item", "_plan", "_tracked")
    may_send_interim = True

    def __init__(
        self,
        requests: RequestTracker,
        plan: InferPlan,
        connection: Reply,
        headers: Headers,
        body: bytes,
        started: float,
    ) -> None:
        """`started`: monotonic time at which the request's time limit starts."""
        context = RequestContext(
            RequestTimings(started), requests.plane.deadline(started, None), HttpCaller(connection.client, headers)
        )
        self._tracked = TrackedRequest(requests, context, plan.endpoint)
        self._plan = plan
        self._connection = connection
        self._headers = headers
        self._body = body
        self._item: QueueItem | None = None

    def start(self) -> None:
        """Puts the rows in line, or answers with an error."""
        tracked, plan = self._tracked, self._plan
        context, endpoint = tracked.context, plan.endpoint
        timings = context.timings
        tracked.__enter__()
        try:
            check_request(tracked, endpoint, self._headers, large=False)
            timings.received = time.monotonic()
            body, self._body = self._body, b""
            rows = np.frombuffer(body[plan.start :], plan.dtype).reshape(plan.shape)  # a copy is aligned
            plan.queue.admit(len(rows), context.deadline, context.priority)
            item = self._item = plan.queue.submit(rows, context.deadline, context.priority)
            context.pending = (item,)
            item.resume = self._resume
            timings.decoded = time.monotonic()
        except Exception as error:  # noqa: BLE001 every request has to be answered, counted and logged
            self._fail(error)

    def _resume(self) -> None:
        try:
            self._answer()
        except Exception as error:  # noqa: BLE001 the batch has other requests
            self._connection.fail(error)

    def _answer(self) -> None:
        try:
            assert self._item is not None
            self._send(self._item.result())
        except Exception as error:  # noqa: BLE001 every request has to be answered, counted and logged
            self._fail(error)
        else:
            try:
                self._tracked.answered()
            finally:
                self._tracked.__exit__()

    def _send(self, answer: Answer) -> None:
        connection, tracked, plan, run = self._connection, self._tracked, self._plan, answer.run
        timings = tracked.context.timings
        timings.batched, timings.ran, timings.batch_size = run.started, run.finished, run.size
        plan.endpoint.recorder.engine_share(answer.engine_seconds)
        logits = answer.raw
        if len(logits) != plan.logits_bytes:
            raise EngineFailed(f"{plan.endpoint.name} answered with another number of classes")
        timings.answered = time.monotonic()
        if tracked.plane.draining or connection.closes:
            connection.respond(200, [*plan.headers, CLOSE], plan.document + logits)
        else:
            connection.send(plan.response + logits, keep_alive=True)

    def _fail(self, error: Exception) -> None:
        tracked = self._tracked
        context = tracked.context
        shown = tracked.failed(error)
        try:
            self._connection.respond(*error_response(shown, context.request_id))
        except BaseException:
            tracked.lost()
            raise
        finally:
            tracked.__exit__()

    def disconnect(self) -> None:
        """The client has gone: ends the wait for the model."""
        self._tracked.context.cancel()

    def cancel(self) -> None:
        """Ends the wait for the model."""
        self.disconnect()
