"""Calls that the native server passes on without a task each: answers, errors, cancellation and the server's end."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from convoy.errors import InvalidInput, Overloaded
from serve.batching.queue_item import QueueItem
from serve.batching.results import Answer, BatchRun
from serve.grpc.caller import CallContext
from serve.grpc.hot_calls import Answer as CallAnswer
from serve.grpc.hot_calls import HotCall, HotCalls, HotMethod

METHOD = "/test.Test/Call"
ROWS = np.zeros((1, 3), np.float32)


def queue_item() -> QueueItem:
    return QueueItem(ROWS, 1e12, 1, 1, 0.0, asyncio.get_running_loop())


async def queued() -> None:
    item = queue_item()
    asyncio.get_running_loop().call_soon(item.answer, Answer(BatchRun(ROWS, 1, 0.0, 0.0), 0, 1))
    assert (await item).run.size == 1


async def never_answered() -> None:
    await queue_item()


async def never_set() -> None:
    await asyncio.Event().wait()


async def in_a_task_then_queued() -> None:
    await asyncio.sleep(0)
    await queue_item()


WAITS = [queued, lambda: asyncio.sleep(0), lambda: asyncio.sleep(0.01), lambda: asyncio.to_thread(len, "")]
ENDLESS = [never_answered, never_set, in_a_task_then_queued]


class Running:
    """Hot calls on an event loop of their own."""

    def __init__(self, calls: HotCalls, loop: asyncio.AbstractEventLoop, channel: grpc.Channel) -> None:
        self.calls = calls
        self.loop = loop
        self.call: Any = channel.unary_unary(METHOD, bytes, bytes)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)


@contextmanager
def serving(folder: Path, answer: CallAnswer) -> Iterator[Running]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    calls = HotCalls(str(folder / "s"), str(folder / "f"), {METHOD: HotMethod(answer)})

    async def start() -> None:
        calls.start()

    with grpc.insecure_channel(f"unix:{folder / 's'}") as channel:
        running = Running(calls, loop, channel)
        running.run(start())
        try:
            yield running
        finally:
            running.run(calls.close())
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()


def status(call: Callable[[], Any]) -> tuple[str, str | None]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code().name, caught.value.details()


@pytest.mark.parametrize("waits", [None, *WAITS])
def test_a_call_is_answered_whatever_it_waits_for(tmp_path: Path, waits: Callable[[], Awaitable[Any]] | None) -> None:
    async def answer(message: bytes, context: CallContext) -> bytes:
        for _ in range(3):
            if waits is not None:
                await waits()
            await queued()
        return message[::-1]

    with serving(tmp_path, answer) as server:
        futures = [server.call.future(b"%d-" % number, timeout=60) for number in range(50)]
        assert [future.result() for future in futures] == [(b"%d-" % number)[::-1] for number in range(50)]


def test_a_call_shows_its_context(tmp_path: Path) -> None:
    async def answer(message: bytes, context: CallContext) -> bytes:
        left = context.time_remaining()
        assert left is None or 0 < left < 70  # clients round it up
        values = dict(context.invocation_metadata() or ())
        return f"{left is None} {values['x-a']!r} {values['x-b-bin']!r} {context.peer()[:5]}".encode()

    metadata = (("x-a", "1"), ("x-b-bin", b"\xff"))
    with serving(tmp_path, answer) as server:
        assert server.call(b"", metadata=metadata) == rb"True '1' b'\xff' unix:"
        assert server.call(b"", timeout=60, metadata=metadata) == rb"False '1' b'\xff' unix:"


@pytest.mark.parametrize("waits", [None, *WAITS])
def test_errors_become_statuses(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, waits: Callable[[], Awaitable[Any]] | None
) -> None:
    errors = {b"input": InvalidInput("é"), b"full": Overloaded("full", 2.5), b"fault": RuntimeError("secret")}

    async def answer(message: bytes, context: CallContext) -> bytes:
        if waits is not None:
            await waits()
        raise errors[message]

    with serving(tmp_path, answer) as server:
        assert status(lambda: server.call(b"input")) == ("INVALID_ARGUMENT", "é")
        with pytest.raises(grpc.RpcError) as caught:
            server.call(b"full")
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "key='retry-after', value='3'" in str(caught.value.trailing_metadata())
        with caplog.at_level(logging.ERROR, "convoy"):
            assert status(lambda: server.call(b"fault")) == ("INTERNAL", "internal error; the server's log has it")
    assert "secret" in caplog.text


@pytest.mark.parametrize("waits", ENDLESS)
@pytest.mark.parametrize("late", [False, True])
def test_a_call_ends_when_its_client_leaves_or_its_deadline_passes(
    tmp_path: Path, waits: Callable[[], Awaitable[None]], late: bool
) -> None:
    started, ended = threading.Event(), threading.Event()

    async def answer(message: bytes, context: CallContext) -> bytes:
        started.set()
        try:
            await waits()
        except asyncio.CancelledError:
            ended.set()
            raise
        return b""

    with serving(tmp_path, answer) as server:
        call = server.call.future(b"", timeout=0.2 if late else None)
        assert started.wait(60)
        if late:
            assert status(call.result)[0] == "DEADLINE_EXCEEDED"
        else:
            call.cancel()
        assert ended.wait(60)


@pytest.mark.parametrize("waits", [*ENDLESS, lambda: asyncio.sleep(0)])
def test_a_call_that_is_cancelled_in_its_first_turn_ends(tmp_path: Path, waits: Callable[[], Awaitable[None]]) -> None:
    async def scenario() -> None:
        cancelled = asyncio.Event()

        async def work() -> bytes:
            try:
                await waits()
            except asyncio.CancelledError:
                cancelled.set()
                raise
            return b""

        calls = HotCalls(str(tmp_path / "s"), str(tmp_path / "f"), {})
        call = HotCall(calls, 1, work())
        call.start()
        call.cancel()
        await cancelled.wait()
        await calls.close()

    asyncio.run(scenario())


def test_draining_waits_for_calls_and_refuses_new_ones(tmp_path: Path) -> None:
    started = threading.Event()
    releases: list[asyncio.Event] = []

    async def answer(message: bytes, context: CallContext) -> bytes:
        releases.append(asyncio.Event())
        started.set()
        await releases[-1].wait()
        return b"done"

    with serving(tmp_path, answer) as server:
        call = server.call.future(b"")
        assert started.wait(60)
        draining = asyncio.run_coroutine_threadsafe(server.calls.drain(60), server.loop)
        assert status(lambda: server.call(b"")) == ("UNAVAILABLE", "the server is stopping; retry")
        server.loop.call_soon_threadsafe(releases[0].set)
        assert call.result() == b"done"
        draining.result(60)
        server.run(server.calls.drain(60))  # nothing is in flight


@pytest.mark.parametrize("waits", ENDLESS)
def test_draining_ends_calls_that_take_too_long(tmp_path: Path, waits: Callable[[], Awaitable[None]]) -> None:
    started = threading.Event()

    async def answer(message: bytes, context: CallContext) -> bytes:
        started.set()
        await waits()
        return b""

    with serving(tmp_path, answer) as server:
        call = server.call.future(b"")
        assert started.wait(60)
        server.run(server.calls.drain(0.01))
        assert status(call.result)[0] == "UNAVAILABLE"
