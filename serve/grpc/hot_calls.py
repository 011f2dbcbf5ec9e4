"""The native gRPC server: unary calls to models are answered without a task each, all other calls by grpcio behind it.

A thread takes the calls that have arrived, as many as there are, and passes them to the event loop at once. There most calls go
to their model's queue without a coroutine (`serve/grpc/direct.py`). Each other call is a coroutine, stepped when it starts
and when the batch that holds its rows has its answer; it goes on in a task only if it waits for anything else.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
from pygrpc_native import EVENT_CANCEL, NativeGrpcFront

from convoy.errors import Cancelled, ConvoyError, NotReady
from serve import eager
from serve.batching.queue_item import QueueItem
from serve.gateway.dataplane import log_fault
from serve.grpc.caller import CallContext
from serve.grpc.calls import trailing_metadata
from serve.telemetry.request_events import FAULT

BURST = 64  # calls that the thread passes to the event loop at once, at most
END_SECONDS = 1.0  # for cancelled calls to end
STOPPING = "the server is stopping; retry"

Metadata = tuple[tuple[str, str | bytes], ...]
Answer = Callable[[bytes, CallContext], Coroutine[Any, Any, bytes]]  # a message to its response; raises ConvoyError


class StartedCall(Protocol):
    """A call in flight."""

    def cancel(self) -> None:
        """Ends it: the client has cancelled it, its deadline has passed, or the server stops."""


class ReadyCall(StartedCall, Protocol):
    """A call that answers itself with `HotCalls.respond` or `HotCalls.fail`."""

    def start(self) -> None:
        """Starts to answer. Called once."""


@dataclass(frozen=True)
class HotMethod:
    """How the calls of a method are answered.

    Attributes:
        answer: answers any call.
        direct: the call of a message, by its number and context, if it needs no coroutine; else None.
    """

    answer: Answer
    direct: Callable[[HotCalls, int, bytes, CallContext], ReadyCall | None] = lambda *call: None


class HotCalls:
    """A native server with hot methods, on a Unix socket. Lives on one event loop."""

    def __init__(self, path: str, fallback: str, methods: Mapping[str, HotMethod], **options: Any) -> None:
        """Binds the socket. Raises OSError.

        Args:
            path: of the Unix socket to serve.
            fallback: Unix socket of the grpcio server that answers all other methods.
            methods: the hot methods by path, `/package.Service/Method`.
            options: of NativeGrpcFront, such as keepalive times.
        """
        self._methods = list(methods.values())
        self._front = NativeGrpcFront(
            f"unix:{path}", [(method, False) for method in methods], call_details=True, **options
        )
        self._front.set_fallback(fallback)
        self._calls: dict[int, StartedCall] = {}
        self._stopping = False
        self._idle: asyncio.Future[None] | None = None
        self._receiver: threading.Thread | None = None

    def start(self) -> None:
        """Starts to accept calls. The fallback server must already listen."""
        loop = asyncio.get_running_loop()
        self._front.start()
        self._receiver = threading.Thread(target=self._receive, args=(loop,), name="grpc-calls", daemon=True)
        self._receiver.start()

    async def drain(self, seconds: float) -> None:
        """Refuses new calls, and waits at most `seconds` for those in flight. Cancels the rest."""
        self._stopping = True
        if not self._calls:
            return
        self._idle = asyncio.get_running_loop().create_future()
        await asyncio.wait((self._idle,), timeout=seconds)
        for call in self._calls.values():
            call.cancel()
        await asyncio.wait((self._idle,), timeout=END_SECONDS)

    async def close(self) -> None:
        """Closes all connections."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._front.close)
        if self._receiver is not None:
            await loop.run_in_executor(None, self._receiver.join)

    def _receive(self, loop: asyncio.AbstractEventLoop) -> None:
        while (events := self._front.recv_batch_details(BURST)) is not None:
            try:
                loop.call_soon_threadsafe(self._take, events, time.monotonic())
            except RuntimeError:  # the event loop was closed without `close`
                self._front.close()
                return

    def _take(self, events: Iterable[tuple[Any, ...]], received: float) -> None:
        # `received`: the time limits count from then, however late the event loop is.
        calls, methods = self._calls, self._methods
        for kind, number, method, message, _, details in events:
            if kind == EVENT_CANCEL:
                if number in calls:
                    calls[number].cancel()
            elif self._stopping:
                self.fail(number, NotReady(STOPPING))
            else:
                try:
                    self._start(number, methods[method], message, HotContext(received, *details))
                except Exception as fault:  # noqa: BLE001 the burst has other calls
                    self.fail(number, fault)

    def _start(self, number: int, method: HotMethod, message: bytes, context: HotContext) -> None:
        direct = method.direct(self, number, message, context)
        call = self._calls[number] = direct or HotCall(self, number, method.answer(message, context))
        call.start()

    def respond(self, number: int, response: bytes) -> None:
        """Ends a call with its response."""
        self._front.respond(number, response)
        self._forget(number)

    def fail(self, number: int, error: Exception | asyncio.CancelledError) -> None:
        """Ends a call with the status of its error."""
        if isinstance(error, (asyncio.CancelledError, Cancelled)):
            shown: ConvoyError = NotReady(STOPPING)  # a client that has cancelled the call itself gets no status
        elif isinstance(error, ConvoyError):
            shown = error
        else:
            log_fault(error)
            shown = ConvoyError(FAULT)
        code: tuple[int, str] = grpc.StatusCode[shown.grpc_code].value
        self._front.fail(number, code[0], str(shown), trailing_metadata(shown))
        self._forget(number)

    def _forget(self, number: int) -> None:
        self._calls.pop(number, None)
        if self._idle is not None and not self._calls and not self._idle.done():
            self._idle.set_result(None)


class HotContext:
    """As `serve.grpc.caller.CallContext`."""

    __slots__ = ("_deadline", "_metadata", "_peer")

    def __init__(self, received: float, metadata: Metadata, peer: str, time_remaining: float | None) -> None:
        """`received`: monotonic time of the arrival, from which `time_remaining` counts."""
        self._metadata = metadata
        self._peer = peer
        self._deadline = None if time_remaining is None else received + time_remaining

    def peer(self) -> str:
        """As `CallContext.peer`."""
        return self._peer

    def time_remaining(self) -> float | None:
        """As `CallContext.time_remaining`."""
        return None if self._deadline is None else self._deadline - time.monotonic()

    def invocation_metadata(self) -> Metadata:
        """As `CallContext.invocation_metadata`."""
        return self._metadata


class HotCall:
    """A call that is answered by a coroutine."""

    __slots__ = ("_calls", "_number", "_task", "_waits_for", "_work")

    def __init__(self, calls: HotCalls, number: int, work: Coroutine[Any, Any, bytes]) -> None:
        self._calls = calls
        self._number = number
        self._work = work
        self._waits_for: Any = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts to answer; returns when that waits for something, or is done."""
        self._step()

    def cancel(self) -> None:
        """Cancels the work, as a task's cancellation does."""
        if self._task is None:
            self._waits_for.cancel()
        else:  # not now: a task that has not begun would drop the work, without telling it
            asyncio.get_running_loop().call_soon(self._task.cancel)

    def _step(self) -> None:
        self._waits_for = None  # the queue item refers to this call
        try:
            waits_for = self._work.send(None)
        except StopIteration as done:
            self._calls.respond(self._number, done.value)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 the boundary of a call
            self._calls.fail(self._number, error)
        else:
            self._waits_for = waits_for
            if type(waits_for) is QueueItem:
                waits_for.resume = self._step
            else:
                self._task = asyncio.get_running_loop().create_task(self._run(self._work, waits_for))

    async def _run(self, work: Coroutine[Any, Any, bytes], waits_for: Any) -> None:
        try:
            self._calls.respond(self._number, await eager.finish(work, waits_for))
        except asyncio.CancelledError as error:
            self._calls.fail(self._number, error)
            raise
        except Exception as error:  # noqa: BLE001 the boundary of a call
            self._calls.fail(self._number, error)
