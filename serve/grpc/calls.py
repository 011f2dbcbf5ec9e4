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
from serve.gateway.request_tracker import RequestTracker, WireProtocol
from serve.grpc.caller import GrpcCaller
from serve.telemetry.recorder import Metrics
from serve.telemetry.request_events import FAULT
from serve.telemetry.request_timings import RequestTimings

Context = grpc.aio.ServicerContext[Any, Any]
Request = TypeVar("Request")
Response = TypeVar("Response")

GRPC = WireProtocol("grpc", "OK", "INTERNAL", lambda error: error.grpc_code)
KEY_NAMES = ("authorization", "x-api-key")
STREAM_DEPTH = 32  # requests of one stream in flight: enough to fill a batch, too few to fill the queue


class Calls:
    """Tracks and authorizes the calls of all services."""

    def __init__(self, plane: DataPlane, metrics: Metrics) -> None:
        self.plane = plane
        self.clock = time.monotonic
        self._requests = RequestTracker(plane, metrics, GRPC)

    @contextlib.contextmanager
    def call(self, name: str, version: str, context: Context) -> Iterator[tuple[Endpoint, RequestContext]]:
        """A call that runs a model, from its message to its answer. Raises ConvoyError."""
        started = self.clock()
        deadline = self.plane.deadline(started, context.time_remaining())
        request = RequestContext(RequestTimings(started), deadline, GrpcCaller(context))
        with self._requests.track(request, name=name) as tracked:
            try:
                if not self.plane.access.open:
                    tracked.endpoint = self.plane.endpoints.by_name.get(name)  # so that a refusal counts for this model
                    tracked.authorize(shown_key(context), name)
                endpoint = tracked.endpoint = self.plane.find(name, version)
                yield endpoint, request
                request.timings.answered = self.clock()
                tracked.answered()
            except Exception as error:
                shown = tracked.failed(error)
                if shown is error:
                    # Error and frame would refer to each other, and stay in memory until garbage collection.
                    del shown
                    raise
                raise shown from error
            except asyncio.CancelledError:
                # The server cancels the call both when the client disconnects and when its deadline passes.
                late = _passed(context.time_remaining())
                request.cancel()
                tracked.failed(DeadlineExceeded("the deadline passed") if late else Cancelled("the client left"))
                raise

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


def shown_key(context: Context) -> bytes:
    """The key in a call's metadata, empty when there is none."""
    values = {key: value for key, value in context.invocation_metadata() or () if key in KEY_NAMES}
    return key_in(*(_bytes(values.get(name)) for name in KEY_NAMES))


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


def _passed(remaining: float | None) -> bool:
    """Whether a deadline has passed; a call without one has None."""
    return remaining is not None and remaining <= 0


async def abort(context: Context, error: ConvoyError) -> NoReturn:
    """Ends a call with an error's status. An overload adds `retry-after`, in seconds, to the trailing metadata."""
    trailing: tuple[tuple[str, str], ...] = ()
    if isinstance(error, Overloaded):
        trailing = (("retry-after", str(max(1, math.ceil(error.retry_after_s)))),)
    await context.abort(grpc.StatusCode[error.grpc_code], str(error), trailing)
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
