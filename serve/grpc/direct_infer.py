"""ModelInfer calls that need no coroutine: all of their message but the numbers has come before."""

from __future__ import annotations

import time

from convoy.errors import Cancelled, ConvoyError, DeadlineExceeded
from convoy.protos import open_inference_pb2 as pb
from convoy.wire.oip_grpc import RAW_INPUT_TAG, parse_message, render_bytes, varint
from convoy.wire.oip_http import KEPT_HEAD_BYTES
from convoy.wire.tensors import Tensor
from serve.api.direct_infer import DirectInfer, InferPlan, PlanCache, plain_tensor
from serve.batching.line import MemberQueue
from serve.gateway.dataplane import DataPlane
from serve.gateway.endpoints import Endpoint
from serve.gateway.request_context import RequestContext
from serve.gateway.request_tracker import RequestTracker, TrackedRequest
from serve.grpc.caller import CallContext, GrpcCaller
from serve.grpc.calls import ends_late, shown_key
from serve.grpc.hot_calls import HotCalls
from serve.telemetry.request_timings import RequestTimings

MOST_SIZES = 256  # of messages


class MessagePlan(InferPlan):
    """What a message determines without its numbers, which are its end.

    Attributes:
        response: the serialized response before its logits.
    """

    __slots__ = ("response",)

    def __init__(self, endpoint: Endpoint, queue: MemberQueue, start: int, tensor: Tensor) -> None:
        super().__init__(endpoint, queue, start, tensor)
        self.response = render_bytes(self.sample())[: -self.logits_bytes]


class MessagePlans:
    """The plans for messages, by their size and the bytes before their numbers."""

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane
        self._starts: dict[int, int] = {}  # size of a message, and offset of its numbers
        self._cache: PlanCache[MessagePlan] = PlanCache()
        plane.on_change.append(self._clear)

    def _clear(self) -> None:
        self._starts.clear()
        self._cache.clear()

    def find(self, message: bytes) -> MessagePlan | None:
        """The plan for a message, None if it must be parsed."""
        start = self._starts.get(len(message))
        return None if start is None else self._cache.get(message[:start])

    def learn(self, message: bytes, request: pb.ModelInferRequest) -> None:
        """Learns from a message that was parsed."""
        if len(request.raw_input_contents) != 1 or request.id or request.parameters or request.outputs:
            return
        raw = request.raw_input_contents[0]
        known = message[: len(message) - len(raw)]
        if not raw or len(known) > KEPT_HEAD_BYTES or not known.endswith(RAW_INPUT_TAG + varint(len(raw))):
            return
        plan = self._cache.learn(known, lambda: self._make(known, raw, request))
        if plan is not None:
            if len(self._starts) >= MOST_SIZES:
                self._starts.clear()
            self._starts[len(message)] = len(known)

    def _make(self, known: bytes, raw: bytes, request: pb.ModelInferRequest) -> MessagePlan | None:
        # The end of the message might also belong to a field that is unknown here: then other bytes change nothing.
        other = bytes(byte ^ 0xFF for byte in raw)
        if list(pb.ModelInferRequest.FromString(known + other).raw_input_contents) != [other]:
            return None
        try:
            endpoint = self._plane.find(request.model_name, request.model_version)
            tensors = parse_message(request)
        except ConvoyError:
            return None
        queue = endpoint.direct_queue
        tensor = None if queue is None else plain_tensor(endpoint, queue, tensors)
        return None if queue is None or tensor is None else MessagePlan(endpoint, queue, len(known), tensor)


class DirectCall(DirectInfer):
    """A ModelInfer call of the native server."""

    __slots__ = ("_calls", "_context", "_number", "_response")

    def __init__(
        self,
        requests: RequestTracker,
        plan: MessagePlan,
        message: bytes,
        calls: HotCalls,
        number: int,
        context: CallContext,
    ) -> None:
        started = time.monotonic()
        deadline = requests.plane.deadline(started, context.time_remaining())
        request = RequestContext(RequestTimings(started), deadline, GrpcCaller(context))
        super().__init__(TrackedRequest(requests, request, plan.endpoint), plan, message)
        self._response = plan.response
        self._calls = calls
        self._number = number
        self._context = context

    def check(self) -> None:
        tracked = self.tracked
        if not tracked.plane.access.open:
            assert tracked.endpoint is not None
            tracked.authorize(shown_key(self._context), tracked.endpoint.name)

    def reply(self, logits: bytes) -> None:
        self._calls.respond(self._number, self._response + logits)

    def refuse(self, error: ConvoyError) -> None:
        self._calls.fail(self._number, error)

    def fail(self, fault: Exception) -> None:
        self._calls.fail(self._number, fault)

    def cancel(self) -> None:
        """Ends the wait for the model: the client cancels, or its deadline has passed."""
        elapsed = time.monotonic() - self.tracked.context.timings.started
        late = ends_late(self._context.time_remaining(), elapsed)
        error = DeadlineExceeded("the deadline passed") if late else Cancelled("the client left")
        if self._item is not None:
            self._item.fail(error)
