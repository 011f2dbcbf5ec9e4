"""Requests for one model that are answered without a coroutine: tensors of plain numbers, and small images.

Their rows go to the model's queue at once, and the batch that runs them calls back. The meaning is that of the coroutines which
answer all other requests.

The requests of one client mostly differ only in the numbers of a tensor. All else follows from their other bytes, so it is
computed once: the plan.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from convoy.errors import ConvoyError, EngineFailed
from convoy.wire.oip_http import InferRequest, InferResponse
from convoy.wire.tensors import BYTES, DTYPES, Tensor
from models.images.decoder import SMALL_SIDE
from models.images.headers import is_png_of
from serve.api.infer import OUTPUT, check_input
from serve.batching.line import MemberQueue
from serve.batching.queue_item import QueueItem
from serve.batching.results import Answer
from serve.gateway.dataplane import DataPlane, ImageBytes
from serve.gateway.endpoints import Endpoint, Rows
from serve.gateway.request_tracker import TrackedRequest

MOST_PLANS = 16  # of a cache


class InferPlan:
    """What the bytes of a request before its tensor determine.

    Attributes:
        endpoint: the model.
        queue: the model's.
        start: offset of the tensor in the request.
        size: bytes of the tensor.
        dtype: of the tensor.
        shape: of the tensor, [rows, …].
        logits_bytes: bytes of the logits, FP32 [rows, classes].
    """

    __slots__ = ("dtype", "endpoint", "logits_bytes", "queue", "shape", "size", "start")

    def __init__(self, endpoint: Endpoint, queue: MemberQueue, start: int, tensor: Tensor) -> None:
        self.endpoint = endpoint
        self.queue = queue
        self.start = start
        self.dtype = DTYPES[tensor.datatype]
        self.shape = tensor.shape
        self.size = tensor.array.nbytes
        self.logits_bytes = self.shape[0] * len(endpoint.labels) * np.dtype(np.float32).itemsize

    def fits(self, size: int) -> bool:
        """Whether a request of `size` bytes ends with a tensor of this plan, and its rows fit into a run now."""
        return size - self.start == self.size and self.shape[0] <= self.queue.limits.batch

    def sample(self) -> InferResponse:
        """A response with logits of the right shape, all 0."""
        shape = (self.shape[0], len(self.endpoint.labels))
        output = Tensor(OUTPUT, "FP32", shape, np.zeros(shape, np.float32))
        return InferResponse(self.endpoint.name, self.endpoint.version, "", (output,))


def plain_tensor(endpoint: Endpoint, request: InferRequest) -> Tensor | None:
    """The tensor of numbers in a request that has no options. None for any other request, and for a faulty one."""
    if len(request.inputs) != 1 or request.outputs or request.id:
        return None
    (tensor,) = request.inputs
    try:
        check_input(endpoint, tensor.name, tensor.datatype, tensor.shape)
    except ConvoyError:
        return None
    return None if tensor.datatype == BYTES or not tensor.shape[0] else tensor


P = TypeVar("P")


class PlanCache(Generic[P]):
    """Plans by the bytes that determine them. None stands for a request that has no plan.

    A plan is made when its bytes come a second time: bytes with an id never do.
    """

    def __init__(self) -> None:
        self._plans: dict[bytes, P | None] = {}
        self._once: set[bytes] = set()
        self.get = self._plans.get

    def learn(self, known: bytes, make: Callable[[], P | None]) -> P | None:
        """Makes the plan, unless the bytes are new or are known to have none."""
        if known in self._plans:
            return self._plans[known]
        if known not in self._once:
            if len(self._once) >= MOST_PLANS:
                self._once.clear()
            self._once.add(known)
            return None
        if len(self._plans) >= MOST_PLANS:
            self._plans.clear()
        plan = self._plans[known] = make()
        return plan

    def clear(self) -> None:
        """Forgets everything."""
        self._plans.clear()
        self._once.clear()


class DirectRequest(ABC):
    """One request that is answered without a coroutine. Its bytes have arrived. A listener checks and answers it."""

    __slots__ = ("_item", "_queue", "tracked")

    def __init__(self, tracked: TrackedRequest, queue: MemberQueue) -> None:
        self.tracked = tracked
        self._queue = queue
        self._item: QueueItem | None = None

    @abstractmethod
    def check(self) -> None:
        """Checks the request's key and options. Raises ConvoyError."""

    @abstractmethod
    def rows(self) -> Rows:
        """Admits the request and makes its rows, at most as many as fit into a run. Raises ConvoyError."""

    @abstractmethod
    def reply(self, answer: Answer) -> None:
        """Sends the answer."""

    @abstractmethod
    def refuse(self, error: ConvoyError) -> None:
        """Sends an error."""

    @abstractmethod
    def fail(self, fault: Exception) -> None:
        """Ends a request that could not be answered because of a fault of the server."""

    def admit(self, count: int) -> None:
        """Raises Overloaded if `count` rows would be late."""
        context = self.tracked.context
        self._queue.admit(count, context.deadline, context.priority)

    def start(self) -> None:
        """Puts the rows in line, or answers with an error."""
        try:
            self._submit()
        except Exception as fault:  # noqa: BLE001 the boundary of a request
            self.fail(fault)

    def _submit(self) -> None:
        tracked = self.tracked
        context = tracked.context
        timings = context.timings
        tracked.__enter__()
        try:
            self.check()
            timings.received = time.monotonic()
            rows = self.rows()
            timings.decoded = time.monotonic()
            item = self._item = self._queue.submit(rows, context.deadline, context.priority)
            context.pending = (item,)
            item.resume = self._resume
        except Exception as error:  # noqa: BLE001 every request has to be answered, counted and logged
            self._refuse(error)

    def _resume(self) -> None:
        try:
            self._answer()
        except Exception as fault:  # noqa: BLE001 the batch has other requests
            self.fail(fault)

    def _answer(self) -> None:
        tracked, item = self.tracked, self._item
        assert item is not None
        assert tracked.endpoint is not None
        # A cycle would keep the request's memory until garbage collection. So would `result`, if it raised the error.
        item.resume = self._item = None
        error = item.exception()
        if isinstance(error, Exception):
            self._refuse(error)
            return
        try:
            answer = item.result()
            run, timings = answer.run, tracked.context.timings
            timings.batched, timings.ran, timings.batch_size = run.started, run.finished, run.size
            tracked.endpoint.recorder.engine_share(answer.engine_seconds)
            self.reply(answer)
        except Exception as fault:  # noqa: BLE001 every request has to be answered, counted and logged
            self._refuse(fault)
            return
        try:
            tracked.answered()
        finally:
            tracked.__exit__()

    def _refuse(self, error: Exception) -> None:
        tracked = self.tracked
        try:
            self.refuse(tracked.failed(error))
        except BaseException:
            tracked.lost()
            raise
        finally:
            tracked.__exit__()


def tensor_rows(plan: InferPlan, message: bytes) -> NDArray[Any]:
    """The rows in a request with a plan."""
    return np.frombuffer(message[plan.start :], plan.dtype).reshape(plan.shape)  # a copy is aligned


def plain_logits(plan: InferPlan, answer: Answer) -> bytes:
    """The bytes of an answer to a request with a plan. Raises EngineFailed if they are not as many as the plan says."""
    logits = answer.raw
    if len(logits) != plan.logits_bytes:
        raise EngineFailed(f"{plan.endpoint.name} answered with another number of classes")
    return logits


class DirectImage(NamedTuple):
    """A small PNG for a model, to be decoded on the event loop.

    Attributes:
        endpoint: the model.
        queue: the model's.
        data: the encoded image.
        probe: of the image, as the model's decoder returned it.
    """

    endpoint: Endpoint
    queue: MemberQueue
    data: ImageBytes
    probe: Any

    def row(self) -> Rows:
        """The image as a row. Raises InvalidInput or TooLarge."""
        decoder = self.endpoint.decoder
        return decoder.stack([decoder.decode(self.data, self.probe)])


def direct_image(plane: DataPlane, endpoint: Endpoint, data: ImageBytes) -> DirectImage | None:
    """The image, if it is small and neither the cache nor another endpoint takes part; else None.

    Only PNGs: the headers of other formats must be parsed to know their size, and the general way would parse them again.
    """
    queue = endpoint.direct_queue
    if queue is None or endpoint.form != "image" or plane.has_cache(endpoint) or not is_png_of(data, SMALL_SIDE):
        return None
    try:
        probe = endpoint.decoder.probe(data)
    except Exception:  # noqa: BLE001 the general way meets it again, and answers it
        return None
    return DirectImage(endpoint, queue, data, probe) if probe.small else None
