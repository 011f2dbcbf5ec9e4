"""Threads for engines and decoders, one step away from the event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

Result = TypeVar("Result")
Work = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[..., Any], tuple[Any, ...]]


class WorkThreads:
    """Runs functions off the event loop, in their order, `count` at a time.

    An executor of concurrent.futures puts a second future with its locks, and another turn of the loop, between a run and
    whoever waits for it: for a small net as long as the run itself.
    """

    def __init__(self, name: str, count: int = 1) -> None:
        self._work: SimpleQueue[Work | None] = SimpleQueue()
        self._count = count
        self._closed = False
        for _ in range(count):
            Thread(target=self._serve, name=name, daemon=True).start()

    async def run(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """What the function returns or raises. Raises RuntimeError when closed."""
        if self._closed:
            raise RuntimeError("the threads have been closed")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._work.put((loop, future, function, arguments))
        return await future

    def close(self) -> None:
        """Ends the threads after what has been asked for; does not wait."""
        self._closed = True
        for _ in range(self._count):
            self._work.put(None)

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            loop, future, function, arguments = work
            if future.cancelled():
                continue
            settle: Callable[[Any], None]
            try:
                settle, result = future.set_result, function(*arguments)
            except Exception as error:  # noqa: BLE001 whatever it is, somebody waits for it
                settle, result = future.set_exception, error
            with contextlib.suppress(RuntimeError):  # the loop may have ended meanwhile
                loop.call_soon_threadsafe(_settle, future, settle, result)


def _settle(future: asyncio.Future[Any], settle: Callable[[Any], None], result: Any) -> None:
    if not future.done():
        settle(result)
