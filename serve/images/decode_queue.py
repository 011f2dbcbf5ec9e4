"""The queue of images that wait for a decoding thread: most urgent first, with fair turns between requests.

The order is that of the engine's queue, by priority and deadline, but each second of decoding that a request has used moves its
other images back. A request with many large images therefore lets others run in between, while photos of a few milliseconds
hardly move. A place is computed again when an image is taken, so that a header with a false size gains nothing.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from queue import SimpleQueue
from threading import Lock
from typing import Any

from serve.worker_threads import Work

TURN = 4.0  # seconds by which a request's deadline counts as later for each second of decoding that it has used

Key = tuple[int, float]


class Turns:
    """A request with waiting images: its priority, its deadline, and the seconds of decoding that it has used.

    An image that is being decoded counts with its expected time.
    """

    __slots__ = ("deadline", "priority", "used")

    def __init__(self, priority: int, deadline: float) -> None:
        self.priority = priority
        self.deadline = deadline
        self.used = 0.0

    @property
    def key(self) -> Key:
        """The place of its next image in the queue; the smallest key is taken first."""
        return self.key_after(0.0)

    def key_after(self, seconds: float) -> Key:
        """Its place once it has used so many more seconds."""
        return self.priority, self.deadline + TURN * (self.used + seconds)


class DecodeWork(Work):
    """An image to decode. `started` is when a thread took it, in monotonic seconds; 0 before."""

    __slots__ = ("_decode", "_on_end", "place", "seconds", "started", "turns")

    def __init__(
        self,
        decode: Callable[[], Any],
        turns: Turns,
        place: Key,
        seconds: float,
        on_end: Callable[[DecodeWork, Any], None],
    ) -> None:
        """`place` is the expected place in the queue, `seconds` the expected time.

        `on_end` gets the result of `decode`, or None when it did not run or raised.
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
        """Called when its request has ended. True when no thread has begun it: it then frees its image and never runs."""
        if self.future.done():
            # Marks the error as retrieved: the request has already failed with another one.
            _ = self.future.cancelled() or self.future.exception()
        self.future.cancel()
        if self.started:
            return False
        self._decode = None
        return True


class DecodeQueue:
    """The waiting images. Threads take from it directly, without a pass of the event loop. Thread-safe."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._heap: list[tuple[Key, int, DecodeWork]] = []
        self._count = 0
        self._lock = Lock()
        self._tokens: SimpleQueue[bool] = SimpleQueue()  # True for each item of the heap; False ends a thread

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
        """The next image; None when its request has ended. The queue must not be empty."""
        now = self._clock()
        with self._lock:
            key, count, work = heapq.heappop(self._heap)
            while key < work.turns.key:  # its request has used decoding time since it was put here
                key, count, work = heapq.heappushpop(self._heap, (work.turns.key, count, work))
            if work.turns.deadline < now or work.future.done():
                return None
            work.started = now
            work.turns.used += work.seconds
            return work

    def took(self, turns: Turns, expected: float, seconds: float) -> None:
        """Replaces the expected time of an image of this request by the measured one."""
        with self._lock:
            turns.used += seconds - expected
