"""The queue of images that wait for a decoding thread: most urgent first, with fair turns between requests.

Images are ordered by priority and deadline, as in the engine's queue, but each second of decoding that a request has used delays
the deadline of its other images, in this order, by TURN seconds. A request with many large images therefore alternates with other
requests, while images that decode in a few milliseconds keep their order. The key is computed again when an image is taken, from
measured times, so a header that declares a false size gives no advantage.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from queue import SimpleQueue
from threading import Lock
from typing import Any

from serve.worker_threads import Work

TURN = 4.0  # seconds added to a request's deadline, for the order only, per second of decoding that it has used

Key = tuple[int, float]


class Turns:
    """The scheduling state of a request: its priority, its deadline, and the seconds of decoding that it has used.

    An image that is being decoded adds its expected seconds to `used`, until the measured ones replace them.
    """

    __slots__ = ("deadline", "priority", "used")

    def __init__(self, priority: int, deadline: float) -> None:
        self.priority = priority
        self.deadline = deadline
        self.used = 0.0

    @property
    def key(self) -> Key:
        """The sort key of its next image. The queue takes the smallest key first."""
        return self.key_after(0.0)

    def key_after(self, seconds: float) -> Key:
        """The sort key after `seconds` more of decoding."""
        return self.priority, self.deadline + TURN * (self.used + seconds)


class DecodeWork(Work):
    """An image to decode. `started`: monotonic time at which a thread took it, 0 before that."""

    __slots__ = ("_decode", "_on_end", "place", "seconds", "started", "turns")

    def __init__(
        self,
        decode: Callable[[], Any],
        turns: Turns,
        place: Key,
        seconds: float,
        on_end: Callable[[DecodeWork, Any], None],
    ) -> None:
        """`place`: the expected sort key in the queue. `seconds`: the expected time of decoding.

        `on_end` is called on the event loop with the result of `decode`, or with None when that raised or did not run.
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
        """Cancels the image when its request has ended. Returns True, and frees the image, if no thread had taken it yet."""
        if self.future.done():
            # Retrieves the error, or asyncio would log it: the request has already failed with the error of another image.
            _ = self.future.cancelled() or self.future.exception()
        self.future.cancel()
        if self.started:
            return False
        self._decode = None
        return True


class DecodeQueue:
    """The waiting images. Threads take them directly, without the event loop. Thread-safe."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._heap: list[tuple[Key, int, DecodeWork]] = []
        self._count = 0
        self._lock = Lock()
        self._tokens: SimpleQueue[bool] = SimpleQueue()  # True for each item in the heap; False stops a thread

    def put(self, work: DecodeWork | None) -> None:
        """Adds an image; None ends one thread."""
        if work is not None:
            with self._lock:
                self._count += 1
                heapq.heappush(self._heap, (work.turns.key, self._count, work))
        self._tokens.put(work is not None)

    def get(self) -> DecodeWork | None:
        """The next image; waits for it. None ends the calling thread."""
        while self._tokens.get():
            if (work := self.take()) is not None:
                return work
        return None

    def take(self) -> DecodeWork | None:
        """The next image, or None when its request has ended or its deadline has passed. The queue must not be empty."""
        now = self._clock()
        with self._lock:
            key, count, work = heapq.heappop(self._heap)
            while key < work.turns.key:  # its request has used decoding time since the key was computed
                key, count, work = heapq.heappushpop(self._heap, (work.turns.key, count, work))
            if work.turns.deadline < now or work.future.done():
                return None
            work.started = now
            work.turns.used += work.seconds
            return work

    def took(self, turns: Turns, expected: float, seconds: float) -> None:
        """Replaces the expected seconds of a decoded image by the measured ones."""
        with self._lock:
            turns.used += seconds - expected
