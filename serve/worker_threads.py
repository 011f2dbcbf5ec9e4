"""Worker threads for engines and image decoding, with results delivered to the event loop.

`concurrent.futures` adds a second future with its locks, and one more iteration of the event loop, between a run and the
coroutine that awaits it. For a small network that takes as long as the run itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any, Protocol, TypeVar

Result = TypeVar("Result")


class Work:
    """A unit of work for a thread, and the future of its result."""

    __slots__ = ("future", "loop")

    def __init__(self) -> None:
        """Must be created on the event loop that awaits the result."""
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()

    def run(self) -> Any:
        """Does the work. Called on a worker thread."""
        raise NotImplementedError

    def settle(self, result: Any, error: Exception | None) -> None:
        """Sets the future's result or exception. Called on the event loop after `run`."""
        if self.future.done():
            return
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)


class Call(Work):
    """Calls a function with its arguments."""

    __slots__ = ("_arguments", "_function")

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        super().__init__()
        self._function = function
        self._arguments = arguments

    def run(self) -> Any:
        return self._function(*self._arguments)


class WorkQueue(Protocol):
    """The queue between the event loop and the threads. Thread-safe; `get` blocks.

    Each None in the queue stops one thread: `get` returns it after all queued work.
    """

    def put(self, work: Any, /) -> None:
        """Adds work; None ends one thread."""
        ...

    def get(self) -> Work | None:
        """The next work; waits for it. None ends the calling thread."""
        ...


class WorkThreads:
    """Runs work on `count` daemon threads, in the order of the queue."""

    def __init__(self, name: str, count: int = 1, queue: WorkQueue | None = None) -> None:
        """Without a `queue`, work runs first in, first out."""
        self._queue: WorkQueue = SimpleQueue[Any]() if queue is None else queue
        self._count = count
        self._closed = False
        for _ in range(count):
            Thread(target=self._serve, name=name, daemon=True).start()

    async def run(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Calls the function on a thread and returns its result. Raises its exception, or RuntimeError after `close`."""
        work = Call(function, arguments)
        self.start(work)
        result: Result = await work.future
        return result

    def start(self, work: Work) -> None:
        """Queues work; await its future for the result. Raises RuntimeError after `close`."""
        if self._closed:
            raise RuntimeError("the worker threads are closed")
        self._queue.put(work)

    def close(self) -> None:
        """Stops the threads after the queued work; does not wait for them."""
        self._closed = True
        for _ in range(self._count):
            self._queue.put(None)

    def _serve(self) -> None:
        while (work := self._queue.get()) is not None:
            result, failure = None, None
            try:
                if not work.future.done():  # nothing awaits the result of a cancelled request
                    result = work.run()
            except Exception as error:  # noqa: BLE001 the awaiting coroutine raises it
                failure = error
            with contextlib.suppress(RuntimeError):  # the loop may be closed already
                work.loop.call_soon_threadsafe(work.settle, result, failure)
            del work, result, failure  # or an idle thread keeps the last image in memory
