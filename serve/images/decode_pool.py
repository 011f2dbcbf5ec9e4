"""The threads that decode large images: C code that releases the GIL, counted so that the profile can tell how busy it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from convoy.errors import ConvoyError, DeadlineExceeded
from serve.batching.alarm import Alarm
from serve.batching.deadline_queue import DEFAULT_PRIORITY, NEVER, Backlog
from serve.batching.pace import SURPRISE, WEIGHT, Pace
from serve.images.decode_queue import DecodeQueue, DecodeWork, Key, Turns
from serve.telemetry.mmap_store import Values
from serve.worker_threads import WorkThreads

LEAST_LAG_SECONDS = 0.005  # that is no surprise
LEAST_SECONDS = 50e-6  # of a decode, however few pixels it has
# Seconds that a pixel takes until a decoder has seen its format. What has no known format is refused in no time.
FIRST_GUESS = {
    "JPEG": 6e-9,
    "PNG": 15e-9,
    "WEBP": 20e-9,
    "GIF": 10e-9,
    "BMP": 5e-9,
    "TIFF": 10e-9,
    "PNM": 5e-9,
    "pixels": 2e-9,
}


class Decodes(Protocol):
    """Makes rows, or looks, of one image. Thread-safe."""

    def decode(self, image: Any, /) -> Any:
        """Blocks."""
        ...

    def glance(self, image: Any, /) -> tuple[str, int]:
        """Its format and the number of its pixels, found in a few microseconds; ("", 0) where that is not possible."""
        ...


@dataclass(frozen=True, slots=True)
class DecodePlan:
    """A request's images, each with its format, its pixels and the seconds that decoding it is expected to take."""

    decoder: Decodes
    images: Sequence[Any]
    sizes: list[tuple[str, int]]
    seconds: list[float]
    turns: Turns


class DecodePool:
    """Decodes on `threads` threads; `busy` counts the seconds they worked. Lives on one event loop."""

    def __init__(self, threads: int, busy: Values, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._count = threads
        self._queue = DecodeQueue(clock)
        self._threads = WorkThreads("decode", threads, self._queue)
        self._busy = busy
        self._alarm = Alarm(self._expire, self._clock)
        self._backlog = Backlog()  # seconds of decoding
        self._under_way: set[DecodeWork] = set()  # waiting images, and those that a thread is at
        self._lag = 0.0  # seconds from the end of an image on its thread to the event loop's notice, lately
        self._paces: WeakKeyDictionary[Decodes, dict[str, Pace]] = WeakKeyDictionary()

    def plan(self, decoder: Decodes, images: Sequence[Any], deadline: float, priority: int = 0) -> DecodePlan:
        """What decoding these images takes. `deadline` in monotonic seconds; priority 0 is the default one."""
        sizes = [decoder.glance(image) for image in images]
        seconds = [LEAST_SECONDS + self._pace(decoder, name).predict(pixels) for name, pixels in sizes]
        return DecodePlan(decoder, images, sizes, seconds, Turns(priority or DEFAULT_PRIORITY, deadline))

    def wait(self, plan: DecodePlan) -> float:
        """Seconds until the planned images would be decoded if they came now; 0 while a thread is free."""
        if len(self._under_way) < self._count:
            return 0.0
        last, whole = plan.seconds[-1], sum(plan.seconds)
        own = max(max(plan.seconds), whole / self._count)
        return self._ahead_of(plan.turns.key_after(whole - last)) + own + self._hops()

    def backlog(self, deadline: float, priority: int = 0) -> float:
        """Seconds until an image of this deadline and priority would have its turn; 0 while a thread is free."""
        if len(self._under_way) < self._count:
            return 0.0
        return self._ahead_of((priority or DEFAULT_PRIORITY, deadline)) + self._hops()

    def start(self, plan: DecodePlan) -> list[DecodeWork]:
        """Puts the images in the queue; to be followed by `finish`."""
        works, before = [], 0.0
        for number, seconds in enumerate(plan.seconds):
            decode, done = partial(self._decode, plan, number), partial(self._done, plan, number)
            works.append(DecodeWork(decode, plan.turns, plan.turns.key_after(before), seconds, done))
            before += seconds
        self._under_way.update(works)
        for work in works:
            self._backlog.add(*work.place, work.seconds)
        for work in works:
            self._threads.start(work)
        self._alarm.set(plan.turns.deadline)
        return works

    async def finish(self, works: Sequence[DecodeWork]) -> list[Any]:
        """What the decoder made of each image. However it ends, images that no thread has begun leave the queue.

        Raises InvalidInput or TooLarge that names the image among several, DeadlineExceeded.
        """
        try:
            decoded, several = [], len(works) > 1
            for place, work in enumerate(works):
                result, _, _ = await work.future
                decoded.append(_checked(result, f"image {place}: " if several else ""))
            return decoded
        finally:
            for work in works:
                if work.drop():
                    self._forget(work)

    def close(self) -> None:
        """Ends the threads; does not wait."""
        self._threads.close()

    def _ahead_of(self, key: Key) -> float:
        return self._backlog.ahead_of(*key) / self._count

    def _hops(self) -> float:
        """Seconds that a busy event loop is late: to read a request, and to notice that its images are decoded."""
        return 2 * self._lag

    def _pace(self, decoder: Decodes, name: str) -> Pace:
        paces = self._paces.setdefault(decoder, {})
        if name not in paces:
            paces[name] = Pace(FIRST_GUESS.get(name, 0.0))
        return paces[name]

    def _decode(self, plan: DecodePlan, number: int) -> tuple[Any, float, float]:
        """An image of a request, or what is wrong with it, the seconds that it took and when it ended. Runs on a thread."""
        start = self._clock()
        try:
            decoded = plan.decoder.decode(plan.images[number])
        except ConvoyError as error:
            decoded = error
        end = self._clock()
        self._queue.took(plan.turns, plan.seconds[number], end - start)
        return decoded, end - start, end

    def _done(self, plan: DecodePlan, number: int, work: DecodeWork, result: tuple[Any, float, float] | None) -> None:
        """A thread has ended work, whether or not somebody still waits for it."""
        self._forget(work)
        if result is not None:
            decoded, seconds, end = result
            self._busy[0] += seconds
            late = min(self._clock() - end, SURPRISE * max(self._lag, LEAST_LAG_SECONDS))
            self._lag += WEIGHT * (late - self._lag)
            name, pixels = plan.sizes[number]
            if pixels and not isinstance(decoded, ConvoyError):  # what was refused says nothing of its pixels
                self._pace(plan.decoder, name).learn(pixels, max(0.0, seconds - LEAST_SECONDS))

    def _forget(self, work: DecodeWork) -> None:
        if work in self._under_way:
            self._under_way.remove(work)
            self._backlog.remove(*work.place, work.seconds)

    def _expire(self) -> float:
        """Ends what is late; the next deadline."""
        now, upcoming = self._clock(), NEVER
        for work in self._under_way:
            if work.future.done():
                continue
            if work.turns.deadline < now:
                work.future.set_exception(DeadlineExceeded("the deadline passed before the image was decoded"))
            else:
                upcoming = min(upcoming, work.turns.deadline)
        return upcoming


def _checked(decoded: Any, prefix: str) -> Any:
    if isinstance(decoded, ConvoyError):
        raise type(decoded)(f"{prefix}{decoded}") from decoded
    return decoded
