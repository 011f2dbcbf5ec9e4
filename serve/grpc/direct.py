"""ModelInfer calls that need no coroutine: tensors of messages that came before but for the numbers, and small images."""

from __future__ import annotations

import time
from functools import partial

from convoy.errors import Cancelled, ConvoyError, DeadlineExceeded
from convoy.protos import open_inference_pb2 as pb
from convoy.wire.oip_grpc import RAW_INPUT_TAG, parse_message, render_bytes, varint
from convoy.wire.oip_http import KEPT_HEAD_BYTES
from convoy.wire.tensors import BYTES, Tensor
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
from serve.api.infer import check_input, plain_response
from serve.batching.line import MemberQueue
from serve.batching.results import Answer
from serve.gateway.dataplane import DataPlane
from serve.gateway.endpoints import Endpoint, Rows
from serve.gateway.request_context import RequestContext
from serve.gateway.request_tracker import RequestTracker, TrackedRequest
from serve.grpc.caller import CallContext, GrpcCaller
from serve.grpc.calls import ends_late, shown_key
from serve.grpc.hot_calls import HotCalls
from serve.telemetry.request_timings import RequestTimings

ONE_IMAGE = ((1,), (1, 1))  # shapes
IMAGE_BYTES = 32 * 1024  # a longer message has no small image
GLANCE = 512  # first bytes of a message, in which its image begins
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
        plan = None if start is None else self._cache.get(message[:start])
        return plan if plan is not None and plan.fits(len(message)) else None

    def learn(self, message: bytes, request: pb.ModelInferRequest) -> None:
        """Learns from a message that was answered."""
        if len(request.raw_input_contents) != 1 or request.id or request.parameters or request.outputs:
            return
        if len(request.inputs) != 1 or request.inputs[0].datatype == BYTES:
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
        # The end of the message might also belong to a field that is unknown here: then another byte in it changes nothing.
        other = bytes((raw[0] ^ 0xFF,)) + raw[1:]
        if list(pb.ModelInferRequest.FromString(known + other).raw_input_contents) != [other]:
            return None
        try:
            endpoint = self._plane.find(request.model_name, request.model_version)
            tensor = plain_tensor(endpoint, parse_message(request, partial(check_input, endpoint)))
        except ConvoyError:
            return None
        queue = endpoint.direct_queue
        return None if queue is None or tensor is None else MessagePlan(endpoint, queue, len(known), tensor)


def plain_input(request: pb.ModelInferRequest, endpoint: Endpoint) -> pb.ModelInferRequest.InferInputTensor | None:
    """The model's input in a request that has nothing else, with raw contents; None for any other request."""
    if len(request.inputs) != 1 or len(request.raw_input_contents) != 1 or request.parameters or request.outputs:
        return None
    entry = request.inputs[0]
    other = entry.name != endpoint.input.name or entry.parameters or entry.HasField("contents")
    return None if other or endpoint.needs_request_id else entry


def single_image(
    entry: pb.ModelInferRequest.InferInputTensor, request: pb.ModelInferRequest, endpoint: Endpoint
) -> bytes | None:
    """The encoded image in a plain input, None if it has another form or is faulty."""
    raw = request.raw_input_contents[0]
    if entry.datatype != BYTES or endpoint.form != "image" or tuple(entry.shape) not in ONE_IMAGE:
        return None
    return raw[4:] if int.from_bytes(raw[:4], "little") == len(raw) - 4 else None


def image_in(plane: DataPlane, request: pb.ModelInferRequest) -> DirectImage | None:
    """The image of a request that needs no coroutine, None if the request takes the general way."""
    endpoint = plane.endpoints.by_name.get(request.model_name)
    if endpoint is None or request.model_version not in ("", endpoint.version):
        return None
    entry = plain_input(request, endpoint)
    image = None if entry is None else single_image(entry, request, endpoint)
    return None if image is None else direct_image(plane, endpoint, image)


class DirectCall(DirectRequest):
    """A call of the native server."""

    __slots__ = ("_calls", "_context", "_number")

    def __init__(
        self,
        requests: RequestTracker,
        endpoint: Endpoint,
        queue: MemberQueue,
        calls: HotCalls,
        number: int,
        context: CallContext,
    ) -> None:
        started = time.monotonic()
        deadline = requests.plane.deadline(started, context.time_remaining())
        request = RequestContext(RequestTimings(started), deadline, GrpcCaller(context))
        super().__init__(TrackedRequest(requests, request, endpoint), queue)
        self._calls = calls
        self._number = number
        self._context = context

    def check(self) -> None:
        tracked = self.tracked
        if not tracked.plane.access.open:
            assert tracked.endpoint is not None
            tracked.authorize(shown_key(self._context), tracked.endpoint.name)

    def send(self, response: bytes) -> None:
        """Answers with OK."""
        self.tracked.context.timings.answered = time.monotonic()
        self._calls.respond(self._number, response)

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


class DirectInferCall(DirectCall):
    """A tensor."""

    __slots__ = ("_message", "_plan")

    def __init__(
        self,
        requests: RequestTracker,
        plan: MessagePlan,
        message: bytes,
        calls: HotCalls,
        number: int,
        context: CallContext,
    ) -> None:
        super().__init__(requests, plan.endpoint, plan.queue, calls, number, context)
        self._plan = plan
        self._message = message

    def rows(self) -> Rows:
        message, self._message = self._message, b""
        self.admit(self._plan.shape[0])
        return tensor_rows(self._plan, message)

    def reply(self, answer: Answer) -> None:
        self.send(self._plan.response + plain_logits(self._plan, answer))


class DirectImageCall(DirectCall):
    """An image."""

    __slots__ = ("_id", "_image")

    def __init__(
        self,
        requests: RequestTracker,
        image: DirectImage,
        identifier: str,
        calls: HotCalls,
        number: int,
        context: CallContext,
    ) -> None:
        super().__init__(requests, image.endpoint, image.queue, calls, number, context)
        self.tracked.context.request_id = identifier
        self._image = image
        self._id = identifier

    def rows(self) -> Rows:
        self.admit(1)
        return self._image.row()

    def reply(self, answer: Answer) -> None:
        timings = self.tracked.context.timings
        self.send(render_bytes(plain_response(self._image.endpoint, self._id, (answer,), timings)))
