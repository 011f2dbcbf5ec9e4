"""gRPC over grpcio's aio client. Messages are serialised before the run, never while the clock runs."""

from __future__ import annotations

import asyncio
from time import monotonic
from urllib.parse import urlsplit

import grpc
import grpc.aio

from loadtest.plan import Target
from loadtest.wire import direct, outcomes
from loadtest.wire.calls import Call, Done

CHANNELS = 4
OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_retries", 0),  # a retry inside the library would hide a failure
    ("grpc.use_local_subchannel_pool", 1),
    direct.CHANNEL,
)


def _identity(message: bytes) -> bytes:
    return message


class GrpcTransport:
    """Uses a few channels in turn; each has its own HTTP/2 connection."""

    def __init__(self, target: Target, done: Done) -> None:
        self.done = done
        self._timeout = target.timeout_s
        self._metadata = tuple((name.lower(), value) for name, value in target.headers)
        address = urlsplit(target.url).netloc
        self._channels = [grpc.aio.insecure_channel(address, OPTIONS) for _ in range(CHANNELS)]
        self._methods: dict[str, list[grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]]] = {}
        self._tasks: dict[asyncio.Task[None], Call] = {}
        self._loop = asyncio.get_running_loop()

    @property
    def in_flight(self) -> int:
        return len(self._tasks)

    def start(self, call: Call) -> None:
        call.sent = monotonic()
        task = self._loop.create_task(self._call(call))
        self._tasks[task] = call
        task.add_done_callback(self._tasks.pop)

    def _method(self, path: str, number: int) -> grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]:
        if path not in self._methods:
            self._methods[path] = [channel.unary_unary(path, _identity, _identity) for channel in self._channels]
        return self._methods[path][number % CHANNELS]

    async def _call(self, call: Call) -> None:
        body, outcome = b"", outcomes.UNFINISHED
        try:
            answer = self._method(call.request.path, call.index)(
                call.request.data,
                timeout=min(self._timeout, call.request.deadline_s or self._timeout),
                metadata=self._metadata,
            )
            call.written = monotonic()
            body, outcome = await answer, outcomes.GRPC
        except grpc.aio.AioRpcError as error:
            body, outcome = (error.details() or "").encode(), outcomes.GRPC + error.code().value[0]
        except asyncio.CancelledError:
            pass  # the run has ended: the call is recorded as unfinished
        self.done(call, outcome, body, None)

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for channel in self._channels:
            await channel.close(None)
