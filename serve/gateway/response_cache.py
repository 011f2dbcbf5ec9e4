"""The response cache of one model version: off by default, bounded, and paused while its hit rate is too low.

The key is a hash of the encoded images, so only equal bytes share an answer. Requests with equal bytes that are in flight
at the same time share one run.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

from convoy.errors import DeadlineExceeded, InvalidInput, TooLarge
from serve.batching.results import Answer

Answers = list[Answer]
ENTRY_BYTES = 1024  # overhead of an entry in addition to its logits
WINDOW = 1000  # lookups over which the hit rate is measured
PAUSE = 10_000  # requests that bypass a paused cache before it is tried again


def key_of(images: Sequence[bytes | memoryview]) -> bytes:
    """A hash of encoded images; it includes their lengths, so that different lists with the same bytes differ."""
    digest = blake2b(digest_size=32)
    for image in images:
        digest.update(len(image).to_bytes(8, "little"))
        digest.update(image)
    return digest.digest()


@dataclass
class HitRate:
    """Pauses a cache whose hit rate is below `least`, and enables it again later. A pure state machine."""

    least: float
    lookups: int = 0
    hits: int = 0
    paused: int = 0

    def bypasses(self) -> bool:
        """Whether this request bypasses the cache."""
        if self.paused == 0:
            return False
        self.paused -= 1
        return True

    def count(self, hit: bool) -> None:
        """Counts a lookup."""
        self.lookups += 1
        self.hits += hit
        if self.lookups == WINDOW:
            if self.hits < self.least * WINDOW:
                self.paused = PAUSE
            self.lookups = self.hits = 0


class ResponseCache:
    """Answers by the hash of their images, with LRU eviction. Lives on one event loop."""

    def __init__(self, limit_bytes: int, least_hit_rate: float) -> None:
        self.rate = HitRate(least_hit_rate)
        self.bytes = 0
        self._limit = limit_bytes
        self._kept: OrderedDict[bytes, Answers] = OrderedDict()
        self._flights: dict[bytes, asyncio.Future[Answers]] = {}

    async def find(
        self,
        images: Sequence[bytes | memoryview],
        compute: Callable[[], Awaitable[Answers]],
        deadline: float,
        cancelled: asyncio.Future[Answer],
    ) -> tuple[Answers, bool]:
        """The answers, and whether they came from the cache or from a run that was already in flight.

        Args:
            images: the encoded images of the request.
            compute: runs the model; its errors are raised here.
            deadline: in monotonic seconds, for waiting for a run in flight.
            cancelled: fails when the client disconnects during that wait.
        """
        if self.rate.bypasses():
            self._clear()
            return await compute(), False
        key = key_of(images)
        answers = await self._present(key, deadline, cancelled)
        self.rate.count(answers is not None)
        if answers is not None:
            return answers, True
        flight = self._flights[key] = asyncio.get_running_loop().create_future()
        try:
            answers = [_compact(answer) for answer in await compute()]
        except BaseException as error:
            flight.set_exception(error if isinstance(error, Exception) else InvalidFlight())
            flight.exception()  # retrieves the error, or asyncio logs it when no other request waits for it
            raise
        else:
            flight.set_result(answers)
            self._keep(key, answers)
            return answers, False
        finally:
            del self._flights[key]

    async def _present(self, key: bytes, deadline: float, cancelled: asyncio.Future[Answer]) -> Answers | None:
        """The cached answers, or those of a run in flight; None if this request must run the model itself."""
        while (kept := self._kept.get(key)) is None:
            flight = self._flights.get(key)
            if flight is None:
                return None
            either: set[asyncio.Future[Any]] = {flight, cancelled}
            await asyncio.wait(either, timeout=deadline - time.monotonic(), return_when="FIRST_COMPLETED")
            if cancelled.done():
                cancelled.result()
            if not flight.done():
                raise DeadlineExceeded("the deadline passed while the same image was being classified")
            if isinstance(flight.exception(), (InvalidInput, TooLarge)):  # the same bytes fail in the same way
                flight.result()
            if flight.exception() is None:
                return flight.result()
        self._kept.move_to_end(key)
        return kept

    def _keep(self, key: bytes, answers: Answers) -> None:
        size = _size(answers)
        if size > self._limit:
            return
        self._kept[key] = answers
        self.bytes += size
        while self.bytes > self._limit:
            _, oldest = self._kept.popitem(last=False)
            self.bytes -= _size(oldest)

    def _clear(self) -> None:
        self._kept.clear()
        self.bytes = 0


class InvalidFlight(Exception):
    """The request that ran the model was cancelled; a request that waited for it runs the model itself."""


def _compact(answer: Answer) -> Answer:
    """The answer with its own rows only: the batch's array would keep the rows of other requests in memory."""
    logits = answer.logits.copy()
    return replace(answer, run=replace(answer.run, logits=logits, size=len(logits)), start=0, stop=len(logits))


def _size(answers: Answers) -> int:
    return ENTRY_BYTES + sum(answer.run.logits.nbytes for answer in answers)
