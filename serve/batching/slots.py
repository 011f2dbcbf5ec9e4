"""Permits for runs on one engine, shared by every line that waits for it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Slots:
    """At most `count` runs at a time, of which those beyond the first `eager` are for full batches. Lives on one event loop.

    Whoever waits leaves a callback; when a permit is free they are called in turn, and take it then: work is bound to the
    engine at the last moment. A run beyond `eager` only travels while the engine is at another one: that is worth it for
    a full batch, while a smaller one fills up meanwhile.
    """

    def __init__(self, count: int, eager: int | None = None) -> None:
        self.count = count
        self.eager = count if eager is None else eager
        self.taken = 0
        self._callbacks: deque[Callable[[], None]] = deque()
        self._lines: dict[Callable[[], None], Callable[[], int]] = {}

    @property
    def waiting(self) -> int:
        """Rows in all lines that wait for a permit."""
        return sum(rows() for rows in self._lines.values())

    def join(self, wake: Callable[[], None], rows: Callable[[], int] = lambda: 0) -> None:
        """Calls `wake` from now on when a permit may be free; `rows` says how many wait."""
        self._callbacks.append(wake)
        self._lines[wake] = rows

    def leave(self, wake: Callable[[], None]) -> None:
        self._callbacks.remove(wake)
        del self._lines[wake]

    def take(self, full: bool) -> bool:
        """Takes a permit, if there is one, for a batch that is `full` or not."""
        if self.taken >= (self.count if full else self.eager):
            return False
        self.taken += 1
        return True

    def give_back(self) -> None:
        self.taken -= 1
        self._wake()

    def resize(self, count: int, eager: int) -> None:
        """Another number of permits; those taken beyond it run out by themselves."""
        grown = count > self.count or eager > self.eager
        self.count, self.eager = count, eager
        if grown:
            self._wake()

    def _wake(self) -> None:
        self._callbacks.rotate(-1)  # whoever was first last time is last this time
        for wake in tuple(self._callbacks):
            if self.taken >= self.count:
                return
            wake()


class LazySlots(Slots):
    """The permit of an engine that may be absent: whoever wants it then makes `fetch` be called, and is woken at `open`."""

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
        """The engine is there."""
        self.present = True
        self._wake()

    def shut(self) -> None:
        """No permits from now on: the engine is about to go."""
        self.present = False

    async def idle(self) -> None:
        """Returns when the permit that is out has come back."""
        if self.taken:
            self._idle = asyncio.get_running_loop().create_future()
            await self._idle
