"""What every gRPC call shares: counting, tracing, errors as status codes, streams that are answered in order."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, NoReturn, TypeVar

import grpc

from convoy.errors import Cancelled, ConvoyError, DeadlineExceeded, Overloaded
from serve.catalog import Endpoint
from serve.dataplane import DataPlane, Watch
from serve.metrics import IN_FLIGHT, Metrics
from serve.observe import Finished
from serve.timeline import Trace

Context = grpc.aio.ServicerContext[Any, Any]
Request = TypeVar("Request")
Response = TypeVar("Response")

STREAM_DEPTH = 32  # requests of one stream that may be under way: enough to fill a batch, too few to fill the queue


class Calls:
    """Counts and times calls, whichever service they belong to."""

    def __init__(self, plane: DataPlane, metrics: Metrics) -> None:
        self.plane = plane
        self.clock = time.monotonic
        self._in_flight = metrics.values(IN_FLIGHT, protocol="grpc")

    @contextlib.contextmanager
    def call(self, name: str, version: str, context: Context) -> Iterator[tuple[Endpoint, Trace, Watch]]:
        """A call from its first line to its answer. Raises ConvoyError."""
        trace, watch = Trace(self.clock()), Watch()
        endpoint: Endpoint | None = None
        code, reason = "OK", ""
        self._in_flight[0] += 1
        self.plane.in_flight += 1
        try:
            endpoint = self.plane.find(name, version)
            yield endpoint, trace, watch
            trace.answered = self.clock()
            self.plane.record_answer(endpoint, trace)
        except ConvoyError as error:
            code, reason = error.grpc_code, str(error)
            if endpoint is not None:
                self.plane.record_failure(endpoint, error, trace)
            raise
        except asyncio.CancelledError:
            # The server cancels alike when the client leaves and when its deadline passes.
            late = _passed(context.time_remaining())
            ended = DeadlineExceeded("the deadline passed") if late else Cancelled("the client left")
            code, reason = ended.grpc_code, str(ended)
            watch.client_gone()
            if endpoint is not None:
                self.plane.record_failure(endpoint, ended, trace)
            raise
        finally:
            self._in_flight[0] -= 1
            self.plane.in_flight -= 1
            if endpoint is not None:
                endpoint.recorder.code("grpc", code)
                if self.plane.observers:
                    parent = traceparent_of(context)
                    finished = Finished(
                        "grpc", endpoint.name, endpoint.version, code, trace, self.clock(), parent, reason
                    )
                    self.plane.tell(finished)


def _passed(remaining: float | None) -> bool:
    """Whether a deadline has passed; a call without one has None."""
    return remaining is not None and remaining <= 0


def traceparent_of(context: Context) -> str:
    """The W3C trace context of a call, empty when it has none."""
    return next((str(value) for key, value in context.invocation_metadata() or () if key == "traceparent"), "")


async def abort(context: Context, error: ConvoyError) -> NoReturn:
    """Ends a call with an error's status; an overload says in the trailing metadata when to come back."""
    trailing: tuple[tuple[str, str], ...] = ()
    if isinstance(error, Overloaded):
        trailing = (("retry-after", str(max(1, math.ceil(error.retry_after_s)))),)
    await context.abort(grpc.StatusCode[error.grpc_code], str(error), trailing)
    raise AssertionError("abort raises")


async def pipelined(
    requests: AsyncIterator[Request], answer: Callable[[Request], Awaitable[Response]], depth: int = STREAM_DEPTH
) -> AsyncIterator[Response]:
    """The answers to a stream's requests, in their order; up to `depth` are worked on at a time."""
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
            left = started.get_nowait()
            if left is not None:
                left.cancel()
