"""A pool of threads that decode large images, and estimates of how long that takes.

The decoders are C code that releases the GIL, so threads run in parallel. `busy` counts their time for the bottleneck report.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from convoy.errors import ConvoyError, DeadlineExceeded
from models.images.headers import Probe
from serve.batching.alarm import Alarm
from serve.batching.deadline_queue import DEFAULT_PRIORITY, NEVER, Backlog
from serve.batching.pace import SURPRISE, WEIGHT, Pace
from serve.images.decode_queue import DecodeQueue, DecodeWork, Key, Turns
from serve.telemetry.mmap_store import Values
from serve.worker_threads import WorkThreads

LEAST_LAG_SECONDS = 0.005  # a shorter delay of the event loop never counts as an outlier
LEAST_SECONDS = 50e-6  # fixed cost of a decode, independent of the number of pixels
# Seconds per pixel, until measurements of this format replace them. Images of an unknown format are refused at once.
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
    """Decodes one image to rows or views. Thread-safe."""

    def probe(self, image: Any, /) -> Probe:
        """What the header shows, in a few microseconds."""
        ...

    def decode(self, image: Any, probe: Probe, /) -> Any:
        """Decodes an image with this probe. Blocks; raises InvalidInput or TooLarge."""
        ...


@dataclass(frozen=True, slots=True)
class DecodePlan:
    """The images of a request, each with its probe and the expected seconds of decoding."""

    decoder: Decodes
    images: Sequence[Any]
    probes: Sequence[Probe]
    seconds: list[float]
    turns: Turns


class DecodePool:
    """Decodes on `threads` threads and adds their busy seconds to `busy[0]`. Belongs to one event loop."""

    def __init__(self, threads: int, busy: Values, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._count = threads
        self._queue = DecodeQueue(clock)
        self._threads = WorkThreads("decode", threads, self._queue)
        self._busy = busy
        self._alarm = Alarm(self._expire, self._clock)
        self._backlog = Backlog()  # seconds of decoding
        self._under_way: set[DecodeWork] = set()  # waiting images, and images that a thread is decoding
        self._lag = 0.0  # moving average: seconds from the end of a decode to its callback on the event loop
        self._paces: WeakKeyDictionary[Decodes, dict[str, Pace]] = WeakKeyDictionary()

    def plan(
        self, decoder: Decodes, images: Sequence[Any], probes: Sequence[Probe], deadline: float, priority: int = 0
    ) -> DecodePlan:
        """Estimates the decoding of these images. `deadline` in monotonic seconds; priority 0 means the default."""
        seconds = [LEAST_SECONDS + self._pace(decoder, probe.name).predict(probe.pixels) for probe in probes]
        return DecodePlan(decoder, images, probes, seconds, Turns(priority or DEFAULT_PRIORITY, deadline))

    def wait(self, plan: DecodePlan) -> float:
        """Seconds until the planned images would be decoded if they were queued now; 0 while a thread is free."""
        if len(self._under_way) < self._count:
            return 0.0
        last, total = plan.seconds[-1], sum(plan.seconds)
        own = max(max(plan.seconds), total / self._count)
        return self._ahead_of(plan.turns.key_after(total - last)) + own + self._hops()

    def backlog(self, deadline: float, priority: int = 0) -> float:
        """Seconds until a thread would take an image of this deadline and priority; 0 while a thread is free."""
        if len(self._under_way) < self._count:
            return 0.0
        return self._ahead_of((priority or DEFAULT_PRIORITY, deadline)) + self._hops()

    def start(self, plan: DecodePlan) -> list[DecodeWork]:
        """Puts the images into the queue. The caller must await `finish` with the result."""
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
        """The decoded images, in order. After an error or a cancellation, images that no thread has taken leave the queue.

        Raises InvalidInput or TooLarge, with the image's position where there are several, and DeadlineExceeded.
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
        """Stops the threads, without waiting for them."""
        self._threads.close()

    def _ahead_of(self, key: Key) -> float:
        return self._backlog.ahead_of(*key) / self._count

    def _hops(self) -> float:
        """Seconds that a busy event loop adds: once to read the request, once to run the callback of a decode."""
        return 2 * self._lag

    def _pace(self, decoder: Decodes, name: str) -> Pace:
        paces = self._paces.setdefault(decoder, {})
        if name not in paces:
            paces[name] = Pace(FIRST_GUESS.get(name, 0.0))
        return paces[name]

    def _decode(self, plan: DecodePlan, number: int) -> tuple[Any, float, float]:
        """Runs on a thread. Returns the decoded image or its error, the seconds that it took, and when it ended."""
        start = self._clock()
        try:
            decoded = plan.decoder.decode(plan.images[number], plan.probes[number])
        except ConvoyError as error:
            decoded = error
        end = self._clock()
        self._queue.took(plan.turns, plan.seconds[number], end - start)
        return decoded, end - start, end

    def _done(self, plan: DecodePlan, number: int, work: DecodeWork, result: tuple[Any, float, float] | None) -> None:
        """Callback on the event loop when a decode has ended, also when the request no longer waits for it."""
        self._forget(work)
        if result is not None:
            decoded, seconds, end = result
            self._busy[0] += seconds
            delay = min(self._clock() - end, SURPRISE * max(self._lag, LEAST_LAG_SECONDS))
            self._lag += WEIGHT * (delay - self._lag)
            probe = plan.probes[number]
            # An image that was refused was not decoded, so its time says nothing about the pace.
            if probe.pixels and not isinstance(decoded, ConvoyError):
                self._pace(plan.decoder, probe.name).learn(probe.pixels, max(0.0, seconds - LEAST_SECONDS))

    def _forget(self, work: DecodeWork) -> None:
        if work in self._under_way:
            self._under_way.remove(work)
            self._backlog.remove(*work.place, work.seconds)

    def _expire(self) -> float:
        """Fails images whose deadline has passed; returns the next deadline."""
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
