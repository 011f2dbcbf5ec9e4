"""Threads for engines and decoders, one step away from the event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any, Protocol, TypeVar

Result = TypeVar("Result")


class Work:
    """Something to be done by a thread, and the future that gets what it returns or raises."""

    __slots__ = ("future", "loop")

    def __init__(self) -> None:
        """Is to be made on the event loop that waits for it."""
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()

    def run(self) -> Any:
        """Is called on the thread."""
        raise NotImplementedError

    def settle(self, result: Any, error: Exception | None) -> None:
        """Is called on the event loop when a thread has ended it."""
        if self.future.done():
            return
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)


class Call(Work):
    """A function to be called."""

    __slots__ = ("_arguments", "_function")

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        super().__init__()
        self._function = function
        self._arguments = arguments

    def run(self) -> Any:
        return self._function(*self._arguments)


class WorkQueue(Protocol):
    """Where work waits for a thread. Thread-safe; `get` blocks, and returns None for each None that was put, last."""

    def put(self, work: Any, /) -> None: ...

    def get(self) -> Work | None: ...


class WorkThreads:
    """Runs functions off the event loop, in the order of their queue, `count` at a time.

    An executor of concurrent.futures puts a second future with its locks, and another turn of the loop, between a run and
    whoever waits for it: for a small net as long as the run itself.
    """

    def __init__(self, name: str, count: int = 1, queue: WorkQueue | None = None) -> None:
        """Without a `queue` what comes first is run first."""
        self._queue: WorkQueue = SimpleQueue[Any]() if queue is None else queue
        self._count = count
        self._closed = False
        for _ in range(count):
            Thread(target=self._serve, name=name, daemon=True).start()

    async def run(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """What the function returns or raises. Raises RuntimeError when closed."""
        work = Call(function, arguments)
        self.start(work)
        result: Result = await work.future
        return result

    def start(self, work: Work) -> None:
        """Has work done, for its future. Raises RuntimeError when closed."""
        if self._closed:
            raise RuntimeError("the threads have been closed")
        self._queue.put(work)

    def close(self) -> None:
        """Ends the threads after what has been asked for; does not wait."""
        self._closed = True
        for _ in range(self._count):
            self._queue.put(None)

    def _serve(self) -> None:
        while (work := self._queue.get()) is not None:
            result, fault = None, None
            try:
                if not work.future.done():  # else nobody waits for it any more
                    result = work.run()
            except Exception as error:  # noqa: BLE001 whatever it is, somebody waits for it
                fault = error
            with contextlib.suppress(RuntimeError):  # the loop may have ended meanwhile
                work.loop.call_soon_threadsafe(work.settle, result, fault)
            del work, result, fault  # a thread that waits keeps nobody's image
