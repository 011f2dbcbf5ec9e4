"""Permits for runs on one engine, shared by all queues that wait for it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Slots:
    """Permits for at most `count` concurrent runs; runs beyond the first `eager` need a full batch. Lives on one event loop.

    Queues register callbacks. When a permit is free, the callbacks are called in turn and may take it, so that a batch is
    formed at the last moment. A run beyond `eager` reaches a host while its engine still runs another batch. This is useful
    for a full batch only; a smaller one can gain rows until then.
    """

    def __init__(self, count: int, eager: int | None = None) -> None:
        self.count = count
        self.eager = count if eager is None else eager
        self.taken = 0
        self._callbacks: deque[Callable[[], None]] = deque()
        self._queues: dict[Callable[[], None], Callable[[], int]] = {}

    @property
    def waiting(self) -> int:
        """Rows in all queues that wait for a permit."""
        return sum(rows() for rows in self._queues.values())

    def join(self, wake: Callable[[], None], rows: Callable[[], int] = lambda: 0) -> None:
        """Registers a queue: `wake` is called when a permit may be free, `rows` returns its waiting rows."""
        self._callbacks.append(wake)
        self._queues[wake] = rows

    def leave(self, wake: Callable[[], None]) -> None:
        """Removes the queue that was registered with this callback."""
        self._callbacks.remove(wake)
        del self._queues[wake]

    def take(self, full: bool) -> bool:
        """Takes a permit if one is free. `full`: for a full batch. Returns whether it was taken."""
        if self.taken >= (self.count if full else self.eager):
            return False
        self.taken += 1
        return True

    def give_back(self) -> None:
        """Returns a permit and wakes the queues."""
        self.taken -= 1
        self._wake()

    def resize(self, count: int, eager: int) -> None:
        """Changes the number of permits. Taken permits above the new number stay valid until they are returned."""
        grown = count > self.count or eager > self.eager
        self.count, self.eager = count, eager
        if grown:
            self._wake()

    def _wake(self) -> None:
        self._callbacks.rotate(-1)  # round robin: the queue that was called first becomes the last
        for wake in tuple(self._callbacks):
            if self.taken >= self.count:
                return
            wake()


class LazySlots(Slots):
    """The single permit of an engine that may not be in memory: `take` then calls `fetch`, and `open` wakes the queues."""

    def __init__(self, fetch: Callable[[], None]) -> None:
        super().__init__(1)
        self.present = False
        self._fetch = fetch
        self._idle: asyncio.Future[None] | None = None

    def take(self, full: bool) -> bool:
        if self.present:
            return super().take(full)
        self._fetch()
        return False

    def give_back(self) -> None:
        super().give_back()
        if self._idle is not None and not self.taken and not self._idle.done():
            self._idle.set_result(None)

    def open(self) -> None:
        """The engine is in memory."""
        self.present = True
        self._wake()

    def shut(self) -> None:
        """Gives no more permits: the engine is about to be unloaded."""
        self.present = False

    async def idle(self) -> None:
        """Waits until the permit is returned."""
        if self.taken:
            self._idle = asyncio.get_running_loop().create_future()
            await self._idle
