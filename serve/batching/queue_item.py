"""Waiting rows of one request, and the future of their answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from convoy.errors import ConvoyError
from serve.batching.results import Answer


class QueueItem(asyncio.Future[Answer]):
    """Rows in a queue. As a future it receives their answer.

    Attributes:
        size: number of rows.
        deadline: in monotonic seconds.
        priority: from 1, the most urgent.
        most: rows of the largest run that answers this item in time.
        joined: time of joining a short queue, 0 if the queue was long.
        resume: called at once with the answer, where a future's own callbacks wait for a turn of the event loop. After an
            error or a cancellation it is called in the next turn, since those end items in the middle of other work.
    """

    def __init__(
        self,
        rows: NDArray[Any],
        deadline: float,
        priority: int,
        most: int,
        joined: float,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(loop=loop)
        self.rows = rows
        self.size = len(rows)
        self.deadline = deadline
        self.priority = priority
        self.most = most
        self.joined = joined
        self.resume: Callable[[], None] | None = None

    @property
    def gone(self) -> bool:
        """Whether it is answered, failed or cancelled."""
        return self.done()

    def answer(self, answer: Answer) -> None:
        """Sets the answer of an item that is not gone."""
        self.set_result(answer)
        if self.resume is not None:
            self.resume()

    def fail(self, error: ConvoyError) -> None:
        """Sets an error, if the item is not gone."""
        if not self.done():
            self.set_exception(error)

    def set_exception(self, error: type | BaseException, /) -> None:
        super().set_exception(error)
        self._resume_soon()

    def cancel(self, msg: Any | None = None) -> bool:
        cancelled = super().cancel(msg)
        if cancelled:
            self._resume_soon()
        return cancelled

    def _resume_soon(self) -> None:
        if self.resume is not None:
            self.get_loop().call_soon(self.resume)
