"""Code shared by all gRPC calls: tracking, API keys, errors as status codes, streams answered in order."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, NoReturn, TypeVar

import grpc

from convoy.errors import Cancelled, ConvoyError, DeadlineExceeded, Overloaded
from serve.auth import Holder, key_in
from serve.gateway.dataplane import DataPlane, log_fault
from serve.gateway.endpoints import Endpoint
from serve.gateway.request_context import RequestContext
from serve.gateway.request_tracker import RequestTracker, TrackedRequest, WireProtocol
from serve.grpc.caller import CallContext, GrpcCaller
from serve.telemetry.recorder import Metrics
from serve.telemetry.request_events import FAULT
from serve.telemetry.request_timings import RequestTimings

Context = grpc.aio.ServicerContext[Any, Any]
Request = TypeVar("Request")
Response = TypeVar("Response")

GRPC = WireProtocol("grpc", "OK", "INTERNAL", lambda error: error.grpc_code)
KEY_NAMES = ("authorization", "x-api-key")
CLIENT_ROUNDING, CLIENT_JITTER_S = 0.01, 0.005
STREAM_DEPTH = 32  # requests of one stream in flight: enough to fill a batch, too few to fill the queue


class Calls:
    """Tracks and authorizes the calls of all services."""

    def __init__(self, plane: DataPlane, metrics: Metrics) -> None:
        self.plane = plane
        self.requests = RequestTracker(plane, metrics, GRPC)

    def count_refusal(self, code: str) -> None:
        """Counts a call that is refused before its model is known."""
        self.requests.count_unserved("", code)

    def call(self, name: str, version: str, context: CallContext) -> ModelCall:
        """A call that runs a model, from its message to its answer."""
        started = time.monotonic()
        deadline = self.plane.deadline(started, context.time_remaining())
        request = RequestContext(RequestTimings(started), deadline, GrpcCaller(context))
        return ModelCall(self.plane, self.requests.track(request, name=name), name, version, context)

    @contextlib.contextmanager
    def question(self, context: Context, name: str = "") -> Iterator[Holder | None]:
        """A call that runs no model. Yields the holder of its key, or None if no keys are declared.

        `name`: the model that the call is about. Raises Unauthenticated, Forbidden or QuotaExceeded.
        """
        if self.plane.access.open:
            yield None
            return
        holder = self.plane.access.find(shown_key(context))
        if name:
            holder.check_call(name)
        holder.enter()
        try:
            yield holder
        finally:
            holder.leave()

    def check_key(self, context: Context) -> None:
        """Checks the key of a stream. Each request of the stream is checked again. Raises Unauthenticated."""
        if not self.plane.access.open:
            self.plane.access.find(shown_key(context))

    def check_change(self, context: Context) -> None:
        """Requires an admin key, even if no keys are declared. Raises Unauthenticated or Forbidden."""
        self.plane.access.find_admin(shown_key(context))


class ModelCall:
    """A context manager: finds the endpoint, and records the call's end. Raises ConvoyError.

    A class with slots: a generator's context manager costs more per request.
    """

    __slots__ = ("_context", "_name", "_plane", "_tracked", "_version")

    def __init__(
        self, plane: DataPlane, tracked: TrackedRequest, name: str, version: str, context: CallContext
    ) -> None:
        self._plane = plane
        self._tracked = tracked
        self._name = name
        self._version = version
        self._context = context

    def __enter__(self) -> tuple[Endpoint, RequestContext]:
        tracked, plane = self._tracked, self._plane
        tracked.__enter__()
        try:
            if not plane.access.open:
                tracked.endpoint = plane.endpoints.by_name.get(self._name)  # so that a refusal counts for this model
                tracked.authorize(shown_key(self._context), self._name)
            endpoint = tracked.endpoint = plane.find(self._name, self._version)
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return endpoint, tracked.context

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        tracked = self._tracked
        try:
            if error is None:
                self._answered()
            elif isinstance(error, Exception):
                shown = tracked.failed(error)
                if shown is not error:
                    raise shown from error
            elif isinstance(error, asyncio.CancelledError):
                self._cancelled()
        finally:
            tracked.__exit__()

    def _answered(self) -> None:
        tracked = self._tracked
        tracked.context.timings.answered = time.monotonic()
        try:
            tracked.answered()
        except Exception as fault:
            shown = tracked.failed(fault)
            if shown is fault:
                raise
            raise shown from fault

    def _cancelled(self) -> None:
        """The server cancels a call both when the client disconnects and when its deadline passes."""
        tracked = self._tracked
        late = ends_late(self._context.time_remaining(), time.monotonic() - tracked.context.timings.started)
        tracked.context.cancel()
        tracked.failed(DeadlineExceeded("the deadline passed") if late else Cancelled("the client left"))


def shown_key(context: CallContext) -> bytes:
    """The key in a call's metadata, empty when there is none."""
    values = {key: value for key, value in context.invocation_metadata() or () if key in KEY_NAMES}
    return key_in(*(_bytes(values.get(name)) for name in KEY_NAMES))


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


def ends_late(remaining: float | None, elapsed: float) -> bool:
    """Whether a call ends because its deadline passes. One without a deadline has None.

    A client cancels at its own deadline, and that may come first: it rounds the time that it sends up by at most 1 %
    (`timeout_encoding.cc` of gRPC), and the server counts from the arrival.
    """
    return remaining is not None and remaining <= CLIENT_ROUNDING * (elapsed + remaining) + CLIENT_JITTER_S


def trailing_metadata(error: ConvoyError) -> tuple[tuple[str, str], ...]:
    """The trailing metadata of an error's status: `retry-after`, in seconds, for an overload."""
    if isinstance(error, Overloaded):
        return (("retry-after", str(max(1, math.ceil(error.retry_after_s)))),)
    return ()


async def abort(context: Context, error: ConvoyError) -> NoReturn:
    """Ends a call with an error's status."""
    await context.abort(grpc.StatusCode[error.grpc_code], str(error), trailing_metadata(error))
    raise AssertionError("abort raises")


def aborts(
    method: Callable[[Any, Request, Context], Awaitable[Response]],
) -> Callable[[Any, Request, Context], Awaitable[Response]]:
    """Decorates a servicer's method: errors end the call with their status."""

    @functools.wraps(method)
    async def call(servicer: Any, request: Request | ConvoyError, context: Context) -> Response:
        try:
            return await method(servicer, parsed(request), context)
        except ConvoyError as error:
            await abort(context, error)
        except Exception as error:  # noqa: BLE001 grpcio would send its text to the client
            log_fault(error)
            await abort(context, ConvoyError(FAULT))

    return call


def parsed(request: Request | ConvoyError) -> Request:
    """The message. Raises the error that `message_fields` found in place of one."""
    if isinstance(request, ConvoyError):
        raise request
    return request


async def pipelined(
    requests: AsyncIterator[Request], answer: Callable[[Request], Awaitable[Response]], depth: int = STREAM_DEPTH
) -> AsyncIterator[Response]:
    """The answers to a stream's requests, in their order; at most `depth` requests are in flight."""
    room = asyncio.Semaphore(depth)
    started: asyncio.Queue[asyncio.Task[Response] | None] = asyncio.Queue()

    async def read() -> None:
        try:
            async for request in requests:
                await room.acquire()
                started.put_nowait(asyncio.ensure_future(answer(request)))
        finally:
            started.put_nowait(None)

    reader = asyncio.create_task(read())
    try:
        while (task := await started.get()) is not None:
            yield await task
            room.release()
        await reader
    finally:
        reader.cancel()
        while not started.empty():
            unfinished = started.get_nowait()
            if unfinished is not None:
                unfinished.cancel()
