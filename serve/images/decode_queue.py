"""Images that wait for a decoding thread: the most urgent first, and a request's images in turns with those of others.

The order is that of the engine's line, by priority and deadline, but decoding that a request has had moves the rest of it
back. A request of many large images so lets others pass between two of them, while photos of a few milliseconds hardly
move. An image's place is looked at when its turn comes, so what its file says of its size need not be true.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from queue import SimpleQueue
from threading import Lock
from typing import Any

from serve.worker_threads import Work

TURN = 4.0  # seconds that a request's images move back for each second of decoding that it has had

Key = tuple[int, float]


class Turns:
    """A request whose images wait: its priority, its deadline, and the seconds of decoding that it has had.

    An image that a thread is at counts as what it is expected to take.
    """

    __slots__ = ("deadline", "had", "priority")

    def __init__(self, priority: int, deadline: float) -> None:
        self.priority = priority
        self.deadline = deadline
        self.had = 0.0

    @property
    def key(self) -> Key:
        """Where its next image stands: the least is the next one."""
        return self.key_after(0.0)

    def key_after(self, seconds: float) -> Key:
        """Where it will stand when it has had so many seconds more."""
        return self.priority, self.deadline + TURN * (self.had + seconds)


class DecodeWork(Work):
    """An image that is to be decoded. `started` is when a thread took it, in monotonic seconds, 0 before."""

    __slots__ = ("_decode", "_on_end", "place", "seconds", "started", "turns")

    def __init__(
        self,
        decode: Callable[[], Any],
        turns: Turns,
        place: Key,
        seconds: float,
        on_end: Callable[[DecodeWork, Any], None],
    ) -> None:
        """Work that is expected to stand at `place` and to take `seconds`.

        `on_end` gets what `decode` returned, None where it did not run or raised.
        """
        super().__init__()
        self._decode: Callable[[], Any] | None = decode
        self.turns = turns
        self.place = place
        self.seconds = seconds
        self.started = 0.0
        self._on_end = on_end

    def run(self) -> Any:
        return self._decode() if self._decode is not None else None

    def settle(self, result: Any, error: Exception | None) -> None:
        try:
            self._on_end(self, result)
        finally:
            super().settle(result, error)

    def drop(self) -> bool:
        """Its request has ended. True when no thread has begun it: then it frees its image and is never begun."""
        if self.future.done():
            _ = self.future.cancelled() or self.future.exception()  # marks the error as seen: another one is told
        self.future.cancel()
        if self.started:
            return False
        self._decode = None
        return True


class DecodeQueue:
    """The images that wait. Threads take from it at once, without a turn of the event loop. Thread-safe."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._heap: list[tuple[Key, int, DecodeWork]] = []
        self._count = 0
        self._lock = Lock()
        self._tokens: SimpleQueue[bool] = SimpleQueue()  # one for each entry of the heap; False: a thread is to end

    def put(self, work: DecodeWork | None) -> None:
        if work is not None:
            with self._lock:
                self._count += 1
                heapq.heappush(self._heap, (work.turns.key, self._count, work))
        self._tokens.put(work is not None)

    def get(self) -> DecodeWork | None:
        while self._tokens.get():
            if (work := self.take()) is not None:
                return work
        return None

    def take(self) -> DecodeWork | None:
        """The next image, of at least one that waits; None when its request has ended."""
        now = self._clock()
        with self._lock:
            key, count, work = heapq.heappop(self._heap)
            while key < work.turns.key:  # its request has had decoding since it was put here
                key, count, work = heapq.heappushpop(self._heap, (work.turns.key, count, work))
            if work.turns.deadline < now or work.future.done():
                return None
            work.started = now
            work.turns.had += work.seconds
            return work

    def took(self, turns: Turns, expected: float, seconds: float) -> None:
        """How long a thread really was at an image of this request."""
        with self._lock:
            turns.had += seconds - expected
