"""Infer requests whose single tensor is plain numbers, answered without a coroutine.

The requests of one client mostly differ only in the numbers. Everything else of them is the same bytes, from which follows
everything but the logits, so it is found out once: the plan. The rows then go to the model's queue at once, and the batch
that runs them calls back. The meaning is that of `serve.api.infer.infer`, which answers all other requests.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np

from convoy.errors import ConvoyError, EngineFailed
from convoy.wire.oip_http import InferRequest, InferResponse
from convoy.wire.tensors import BYTES, DTYPES, Tensor
from serve.api.infer import OUTPUT, check_input
from serve.batching.line import MemberQueue
from serve.batching.queue_item import QueueItem
from serve.gateway.endpoints import Endpoint
from serve.gateway.request_tracker import TrackedRequest

MOST_PLANS = 64  # of a cache


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

    def sample(self) -> InferResponse:
        """A response with logits of the right shape, all 0."""
        shape = (self.shape[0], len(self.endpoint.labels))
        output = Tensor(OUTPUT, "FP32", shape, np.zeros(shape, np.float32))
        return InferResponse(self.endpoint.name, self.endpoint.version, "", (output,))


def plain_tensor(endpoint: Endpoint, queue: MemberQueue, request: InferRequest) -> Tensor | None:
    """The tensor of a request that has no options, if its rows fit into a run as they are. None for a faulty request too."""
    if len(request.inputs) != 1 or request.outputs or request.id:
        return None
    (tensor,) = request.inputs
    try:
        check_input(endpoint, tensor.name, tensor.datatype, tensor.shape)
    except ConvoyError:
        return None
    return None if tensor.datatype == BYTES or not 0 < tensor.shape[0] <= queue.limits.batch else tensor


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


class DirectInfer(ABC):
    """One request with a plan. Its bytes have arrived. A listener adds how it is checked and answered."""

    __slots__ = ("_item", "_message", "_plan", "tracked")

    def __init__(self, tracked: TrackedRequest, plan: InferPlan, message: bytes) -> None:
        self.tracked = tracked
        self._plan = plan
        self._message = message
        self._item: QueueItem | None = None

    @abstractmethod
    def check(self) -> None:
        """Checks the request's key and options. Raises ConvoyError."""

    @abstractmethod
    def reply(self, logits: bytes) -> None:
        """Sends the answer."""

    @abstractmethod
    def refuse(self, error: ConvoyError) -> None:
        """Sends an error."""

    @abstractmethod
    def fail(self, fault: Exception) -> None:
        """Ends a request that could not be answered because of a fault of the server."""

    def start(self) -> None:
        """Puts the rows in line, or answers with an error."""
        try:
            self._submit()
        except Exception as fault:  # noqa: BLE001 the boundary of a request
            self.fail(fault)

    def _submit(self) -> None:
        tracked, plan = self.tracked, self._plan
        context = tracked.context
        timings = context.timings
        tracked.__enter__()
        try:
            self.check()
            timings.received = time.monotonic()
            message, self._message = self._message, b""
            rows = np.frombuffer(message[plan.start :], plan.dtype).reshape(plan.shape)  # a copy is aligned
            plan.queue.admit(plan.shape[0], context.deadline, context.priority)
            item = self._item = plan.queue.submit(rows, context.deadline, context.priority)
            context.pending = (item,)
            item.resume = self._resume
            timings.decoded = time.monotonic()
        except Exception as error:  # noqa: BLE001 every request has to be answered, counted and logged
            self._refuse(error)

    def _resume(self) -> None:
        try:
            self._answer()
        except Exception as fault:  # noqa: BLE001 the batch has other requests
            self.fail(fault)

    def _answer(self) -> None:
        tracked, plan = self.tracked, self._plan
        try:
            assert self._item is not None
            answer = self._item.result()
            run, timings = answer.run, tracked.context.timings
            timings.batched, timings.ran, timings.batch_size = run.started, run.finished, run.size
            plan.endpoint.recorder.engine_share(answer.engine_seconds)
            logits = answer.raw
            if len(logits) != plan.logits_bytes:
                raise EngineFailed(f"{plan.endpoint.name} answered with another number of classes")
            timings.answered = time.monotonic()
            self.reply(logits)
        except Exception as error:  # noqa: BLE001 every request has to be answered, counted and logged
            self._refuse(error)
            return
        try:
            tracked.answered()
        finally:
            tracked.__exit__()

    def _refuse(self, error: Exception) -> None:
        tracked = self.tracked
        shown = tracked.failed(error)
        try:
            self.refuse(shown)
        except BaseException:
            tracked.lost()
            raise
        finally:
            tracked.__exit__()
