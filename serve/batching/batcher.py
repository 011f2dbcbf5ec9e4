"""The late-binding batcher: a batch is formed when an engine slot becomes free, from what waits then.

Requests are admitted once, before their images are decoded: `arrival` counts what is still being decoded, `submit` refuses
nothing. Every entry's future ends on every path, exactly once: answered, failed with its batch, late or cancelled.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from convoy.errors import ConvoyError, DeadlineExceeded, EngineFailed, NotReady, Overloaded
from serve.batching.alarm import Alarm
from serve.batching.deadline_queue import DEFAULT_PRIORITY, NEVER, Backlog, DeadlineQueue
from serve.batching.latency_curve import LatencyCurve
from serve.batching.line import BatcherLimits, Rows
from serve.batching.non_finite import non_finite_error, non_finite_rows
from serve.batching.pace import SURPRISE, RunTimes, Spread
from serve.batching.results import Answer, BatchRun
from serve.batching.slots import Slots

Execute = Callable[[Rows], Awaitable[NDArray[np.float32]]]

log = logging.getLogger("convoy.batcher")

SWEEP_SECONDS = 0.05
# Safety factor on the expected time: an admitted request that misses its deadline has wasted a decode and a run.
MARGIN = 1.25
RUNS_TO_WAIT = 2  # that a request's time must suffice for: the one under way when it comes, and its own


class QueueItem:
    """Rows of one request that wait, and the future that receives (run, first row, last row)."""

    __slots__ = ("deadline", "future", "joined", "most", "priority", "rows", "size")

    def __init__(
        self,
        rows: Rows,
        deadline: float,
        priority: int,
        most: int,
        joined: float,
        future: asyncio.Future[Answer],
    ) -> None:
        """`most`: rows that a run may have for this entry to be in time; `joined`: when, 0 in a long line."""
        self.rows = rows
        self.size = len(rows)
        self.deadline = deadline
        self.priority = priority
        self.most = most
        self.joined = joined
        self.future = future

    @property
    def gone(self) -> bool:
        return self.future.done()

    def fail(self, error: ConvoyError) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class Batcher:
    """Batches rows for one engine, whose `slots` it may share with others. Lives on one event loop; not thread-safe.

    `execute` gets [n, …] and answers [n, classes]; whatever it raises fails its own batch, once, and nothing else.
    """

    def __init__(
        self,
        execute: Execute,
        slots: Slots,
        limits: BatcherLimits,
        curve: LatencyCurve,
        on_run: Callable[[int, float], None] = lambda size, seconds: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits = limits
        self.slots = slots
        self._times = RunTimes(curve)
        self._execute = execute
        self._on_run = on_run
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._line: DeadlineQueue[QueueItem] = DeadlineQueue()
        self._running: dict[asyncio.Task[None], Sequence[QueueItem]] = {}
        self._decode_error = Spread(1.0)  # what decoding took, in parts of what it was expected to take
        self._after = Spread(0.0)  # seconds from a place in a short line to the answer
        self._arriving = Backlog()  # rows that are being decoded
        self._alarm = Alarm(self._ring, clock)
        self._swept_at = float("-inf")
        self._closed = False
        slots.join(self._pump, lambda: self._line.rows)

    @property
    def waiting_rows(self) -> int:
        return self._line.rows

    def waiting_rows_of(self, futures: Collection[asyncio.Future[Answer]]) -> int:
        """Rows in the queue whose futures are among these. Looks at every item of the queue: for metrics, not for requests."""
        return sum(item.size for item in self._line if not item.gone and item.future in futures)

    @property
    def curve(self) -> LatencyCurve:
        return self._times.curve

    def measured(self, limits: BatcherLimits, curve: LatencyCurve) -> None:
        """What the engine can do is known now. The batch may only grow: whoever waits was cut to the old one."""
        self.limits, self._times = limits, RunTimes(curve)

    def admit(
        self, size: int, deadline: float, priority: int = 0, ready_in: float = 0.0, decoded: bool = False
    ) -> None:
        """Decides whether `size` more rows can be answered in time. To be asked once, before anything is done for them.

        Args:
            size: rows.
            deadline: in monotonic seconds.
            priority: from 1, the most urgent; 0 is the default one.
            ready_in: seconds until the rows are decoded, where they wait for that; 0: they are there, or nothing is ahead.
            decoded: they have been decoded, and whatever is still being decoded comes behind them.

        Raises Overloaded when the queue is full or the answer would be late, NotReady when closed.
        """
        if self._closed:
            raise NotReady("the model is being unloaded; retry")
        arriving = 0 if decoded else int(self._arriving.total)
        if self._line.rows + arriving + size > self.limits.queue:
            self._sweep()
        waiting = self._line.rows + arriving
        plenty = not ready_in and deadline - self._clock() > self._patience()
        if plenty and waiting < self.limits.batch and waiting + size <= self.limits.queue:
            return
        expected = self._expect(size, deadline, priority or DEFAULT_PRIORITY, ready_in, decoded)
        if waiting and waiting + size > self.limits.queue:
            raise Overloaded(f"queue full: {waiting} images wait, the limit is {self.limits.queue}", expected)
        # Where nobody waits, a request is admitted whatever is expected, or a wrong estimate would never be corrected by a run.
        if (waiting or ready_in) and self._clock() + MARGIN * expected > deadline:
            raise Overloaded(
                f"queue too long: {waiting} images wait, about {expected * 1000:.0f} ms; past the deadline", expected
            )

    @contextmanager
    def arrival(self, size: int, deadline: float, priority: int = 0, ready_in: float = 0.0) -> Iterator[None]:
        """Admits rows that are still being decoded: for that time they count as waiting. Raises as `admit` does."""
        self.admit(size, deadline, priority, ready_in)
        began, entry = self._clock(), (priority or DEFAULT_PRIORITY, deadline, size)
        self._arriving.add(*entry)
        try:
            yield
            self._learn_decoding(began, ready_in)
        except DeadlineExceeded:
            self._learn_decoding(began, ready_in)
            raise
        finally:
            self._arriving.remove(*entry)

    def _learn_decoding(self, began: float, ready_in: float) -> None:
        """Decoding that had nothing ahead counts as estimated right, so a past error fades where nothing else is admitted."""
        ratio = (self._clock() - began) / ready_in if ready_in else 1.0
        self._decode_error.learn(min(ratio, SURPRISE))

    def submit(self, rows: Rows, deadline: float, priority: int = 0) -> asyncio.Future[Answer]:
        """Puts at most `limits.batch` rows that were admitted in line. Arguments as of `admit`. Raises NotReady when closed."""
        if len(rows) > self.limits.batch:
            raise ValueError(f"{len(rows)} rows in one entry, the batch limit is {self.limits.batch}")
        if self._closed:
            raise NotReady("the model is being unloaded; retry")
        most = self._run_size(deadline)
        joined = self._clock() if self._line.rows < self.limits.batch else 0.0
        entry = QueueItem(rows, deadline, priority or DEFAULT_PRIORITY, most, joined, self._loop.create_future())
        self._line.push(entry)
        self._pump()
        self._alarm.set(deadline)
        return entry.future

    async def close(self) -> None:
        """Lets what runs finish and refuses what waits."""
        self._closed = True
        self.slots.leave(self._pump)
        for entry in self._line.expire(float("inf")):
            entry.fail(NotReady("the model was unloaded while the request waited; retry"))
        if self._running:
            await asyncio.wait(self._running)
        self._alarm.cancel()

    def _sweep(self) -> None:
        """Drops whoever has gone or is late; seldom, since it looks at the whole line."""
        now = self._clock()
        if now - self._swept_at >= SWEEP_SECONDS:
            self._swept_at = now
            self._expire(now)

    def _expire(self, now: float) -> None:
        for entry in self._line.expire(now):
            entry.fail(DeadlineExceeded("the deadline passed while the request waited"))
        for batch in self._running.values():
            for entry in batch:
                if entry.deadline < now:
                    entry.fail(DeadlineExceeded("the deadline passed while the engine ran"))

    def _patience(self) -> float:
        """Seconds that suffice for a run under way and a full one of one's own."""
        return MARGIN * RUNS_TO_WAIT * self._times.predict(self.limits.batch)

    def _run_size(self, deadline: float) -> int:
        """The most rows that a run may have for an answer by this deadline: all that are allowed, where there is time."""
        seconds = (deadline - self._clock()) / (MARGIN * RUNS_TO_WAIT)
        return self._times.largest(seconds, self.limits.batch)

    def _expect(self, size: int, deadline: float, priority: int, ready_in: float, decoded: bool) -> float:
        """Seconds until `size` rows that come now are answered.

        Decoding and the engine work at the same time: rows meet whichever of both ends later. Behind decoding they take what
        rows in a short line take, which is more than a run: they wait for the one under way, on cores that all share.
        """
        ahead = self._line.ahead_of(priority, deadline)
        if not decoded:
            ahead += int(self._arriving.ahead_of(priority, deadline))
        batch = self._run_size(deadline)
        runs, rest = divmod(ahead, batch)
        others = -(-max(0, self.slots.waiting - self._line.rows) // batch)  # lines that share the engine take turns
        runs += min(others, runs + 1)
        running = sum(entry.size for entries in self._running.values() for entry in entries)
        before = runs * self._times.predict(batch) + (self._times.predict(running) / 2 if running else 0.0)
        own = self._times.predict(min(batch, rest + size)) * -(-size // batch)
        behind = ready_in * self._decode_error.high + max(own, self._after.high) if ready_in else 0.0
        return max(behind, before / self.slots.count + own)

    def _pump(self) -> None:
        while self._line and self.slots.take(full=self._line.rows >= self.limits.batch):
            now = self._clock()
            batch, late = self._line.take(now, self.limits.batch, self._times.predict)
            for entry in late:
                entry.fail(DeadlineExceeded("the deadline passed while the request waited"))
            if batch:
                task = self._loop.create_task(self._run(batch, now))
                self._running[task] = batch
                task.add_done_callback(self._free)
            else:
                self.slots.give_back()

    def _free(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        self.slots.give_back()

    async def _run(self, batch: Sequence[QueueItem], started: float) -> None:
        try:
            rows = batch[0].rows if len(batch) == 1 else np.concatenate([entry.rows for entry in batch])
            logits = await self._execute(rows)
            if len(logits) != len(rows):
                raise EngineFailed(f"the engine answered {len(logits)} rows for {len(rows)}")
        except ConvoyError as error:
            _fail_all(batch, error)
        except asyncio.CancelledError:
            _fail_all(batch, NotReady("the server is stopping; retry"))
            raise
        except Exception as error:
            log.exception("a batch failed")
            _fail_all(batch, EngineFailed(f"the engine failed: {type(error).__name__}"))
        else:
            self._deliver(batch, BatchRun(logits, len(rows), started, self._clock()))

    def _deliver(self, batch: Sequence[QueueItem], run: BatchRun) -> None:
        seconds = run.finished - run.started
        if batch[-1].joined:
            usual = max(self._times.predict(run.size), self._after.high)
            self._after.learn(min(run.finished - batch[-1].joined, SURPRISE * usual))
        self._times.learn(run.size, seconds)
        start = 0
        lost = non_finite_rows(run.logits)
        if lost is not None:  # the batch is ranked as a whole, and arithmetic with infinity warns
            run = replace(run, logits=np.where(lost[:, np.newaxis], np.float32(0), run.logits))
        for entry in batch:
            stop = start + entry.size
            if not entry.future.done():
                if entry.deadline < run.finished:
                    entry.fail(DeadlineExceeded("the deadline passed while the engine ran"))
                elif lost is not None and lost[start:stop].any():
                    entry.fail(non_finite_error(entry.rows[lost[start:stop]]))
                else:
                    entry.future.set_result(Answer(run, start, stop))
            start = stop
        self._on_run(run.size, seconds)

    def _ring(self) -> float:
        """Ends what is late; the next deadline."""
        self._expire(self._clock())
        running = (entry.deadline for batch in self._running.values() for entry in batch if not entry.gone)
        return min(self._line.next_deadline(), min(running, default=NEVER))


def _fail_all(batch: Sequence[QueueItem], error: ConvoyError) -> None:
    for entry in batch:
        entry.fail(error)
