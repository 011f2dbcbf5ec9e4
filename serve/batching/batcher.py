"""The late-binding batcher: a batch is formed from the waiting rows when an engine slot becomes free.

Requests are admitted once, before their images are decoded: `arrival` counts images that are being decoded, and `submit`
does not check again. Every item's future ends exactly once on every path: answered, failed with its batch, late or cancelled.
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
from serve import eager
from serve.batching.alarm import Alarm
from serve.batching.deadline_queue import DEFAULT_PRIORITY, NEVER, Backlog, DeadlineQueue
from serve.batching.latency_curve import LatencyCurve
from serve.batching.line import BatcherLimits, Rows
from serve.batching.non_finite import non_finite_error, non_finite_rows
from serve.batching.pace import SURPRISE, RunTimes, Spread
from serve.batching.queue_item import QueueItem
from serve.batching.results import Answer, BatchRun
from serve.batching.slots import Slots

Execute = Callable[[Rows], Awaitable[NDArray[np.float32]]]

log = logging.getLogger("convoy.batcher")

SWEEP_SECONDS = 0.05
# Safety factor on the expected time: an admitted request that misses its deadline has wasted a decode and a run.
MARGIN = 1.25
RUNS_TO_WAIT = 2  # runs before an answer: the one in progress when the request arrives, and its own


class Batcher:
    """Batches rows for an engine. Several batchers may share its `slots`. Lives on one event loop; not thread-safe.

    `execute` maps rows [n, …] to logits [n, classes]. An exception fails only the items of its batch.
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
        self._patience = self._full_run_patience()
        self._execute = execute
        self._on_run = on_run
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._queue: DeadlineQueue[QueueItem] = DeadlineQueue()
        self._running: dict[asyncio.Task[None], Sequence[QueueItem]] = {}
        self._decode_error = Spread(1.0)  # measured decode time divided by the expected one
        self._after = Spread(0.0)  # seconds from joining a short queue to the answer
        self._arriving = Backlog()  # rows that are being decoded
        self._alarm = Alarm(self._ring, clock)
        self._swept_at = float("-inf")
        self._closed = False
        self._scheduled = False  # whether `_pump` is scheduled
        slots.join(self._pump, lambda: self._queue.rows)

    @property
    def waiting_rows(self) -> int:
        """Rows in the queue, without running rows and rows that are being decoded."""
        return self._queue.rows

    def waiting_rows_of(self, futures: Collection[asyncio.Future[Answer]]) -> int:
        """Rows in the queue that belong to these futures. Scans the whole queue, so call it for metrics only."""
        return sum(item.size for item in self._queue if not item.gone and item in futures)

    @property
    def curve(self) -> LatencyCurve:
        """The engine's measured latency curve."""
        return self._times.curve

    def measured(self, limits: BatcherLimits, curve: LatencyCurve) -> None:
        """Sets new limits after a measurement. The batch limit may only grow: waiting items have up to the old limit of rows."""
        self.limits, self._times = limits, RunTimes(curve)
        self._patience = self._full_run_patience()

    def admit(
        self, size: int, deadline: float, priority: int = 0, ready_in: float = 0.0, decoded: bool = False
    ) -> None:
        """Decides whether `size` more rows can be answered in time. Called once per request, before any work for it.

        Args:
            size: rows.
            deadline: in monotonic seconds.
            priority: from 1, the most urgent; 0 is the default priority.
            ready_in: expected seconds until the rows are decoded, including the lag of the event loop; 0 if they are decoded, or
                if nothing delays their decoding.
            decoded: the rows are decoded, so images that are still being decoded are not ahead of them.

        Raises Overloaded when the queue is full or the answer would be late, NotReady when closed.
        """
        if self._closed:
            raise NotReady("the model is being unloaded; retry")
        arriving = 0 if decoded else int(self._arriving.total)
        if self._queue.rows + arriving + size > self.limits.queue:
            self._sweep()
        waiting = self._queue.rows + arriving
        plenty = not ready_in and deadline - self._clock() > self._patience
        if plenty and waiting < self.limits.batch and waiting + size <= self.limits.queue:
            return
        expected = self._expect(size, deadline, priority or DEFAULT_PRIORITY, ready_in, decoded)
        if waiting and waiting + size > self.limits.queue:
            raise Overloaded(f"queue full: {waiting} images wait, the limit is {self.limits.queue}", expected)
        # An empty queue admits every request: otherwise no run would ever correct a wrong estimate.
        if (waiting or ready_in) and self._clock() + MARGIN * expected > deadline:
            raise Overloaded(
                f"queue too long: {waiting} images wait, about {expected * 1000:.0f} ms; past the deadline", expected
            )

    @contextmanager
    def arrival(self, size: int, deadline: float, priority: int = 0, ready_in: float = 0.0) -> Iterator[None]:
        """Admits rows that are still being decoded; until then they count as waiting. Raises as `admit` does."""
        self.admit(size, deadline, priority, ready_in)
        began, backlog = self._clock(), (priority or DEFAULT_PRIORITY, deadline, size)
        self._arriving.add(*backlog)
        try:
            yield
            self._learn_decoding(began, ready_in)
        except DeadlineExceeded:
            self._learn_decoding(began, ready_in)
            raise
        finally:
            self._arriving.remove(*backlog)

    def _learn_decoding(self, began: float, ready_in: float) -> None:
        """Decoding without a queue counts as correctly estimated, so that an old error fades even if nothing else is admitted."""
        ratio = (self._clock() - began) / ready_in if ready_in else 1.0
        self._decode_error.learn(min(ratio, SURPRISE))

    def submit(self, rows: Rows, deadline: float, priority: int = 0) -> QueueItem:
        """Queues at most `limits.batch` admitted rows. Arguments as of `admit`. Raises NotReady when closed."""
        if len(rows) > self.limits.batch:
            raise ValueError(f"{len(rows)} rows in one queue item, the batch limit is {self.limits.batch}")
        if self._closed:
            raise NotReady("the model is being unloaded; retry")
        now = self._clock()
        most = self._run_size(deadline - now)
        joined = now if self._queue.rows < self.limits.batch else 0.0
        item = QueueItem(rows, deadline, priority or DEFAULT_PRIORITY, most, joined, self._loop)
        self._queue.push(item)
        if not self._scheduled:  # in the next turn of the loop, so that requests which arrive together run together
            self._scheduled = True
            self._loop.call_soon(self._pump)
        self._alarm.set(deadline)
        return item

    async def close(self) -> None:
        """Fails the waiting items with NotReady and waits for the running batches."""
        self._closed = True
        self.slots.leave(self._pump)
        for item in self._queue.expire(float("inf")):
            item.fail(NotReady("the model was unloaded while the request waited; retry"))
        if self._running:
            await asyncio.wait(self._running)
        self._alarm.cancel()

    def _sweep(self) -> None:
        """Drops late and cancelled items; at most every SWEEP_SECONDS, since it scans the whole queue."""
        now = self._clock()
        if now - self._swept_at >= SWEEP_SECONDS:
            self._swept_at = now
            self._expire(now)

    def _expire(self, now: float) -> None:
        for item in self._queue.expire(now):
            item.fail(DeadlineExceeded("the deadline passed while the request waited"))
        for batch in self._running.values():
            for item in batch:
                if item.deadline < now:
                    item.fail(DeadlineExceeded("the deadline passed while the engine ran"))

    def _full_run_patience(self) -> float:
        """Seconds that are enough for the run in progress and a full run."""
        return MARGIN * RUNS_TO_WAIT * self._times.predict(self.limits.batch)

    def _run_size(self, left: float) -> int:
        """Rows of the largest run, up to the batch limit, that ends within `left` seconds."""
        if left >= self._patience:
            return self.limits.batch
        seconds = left / (MARGIN * RUNS_TO_WAIT)
        return self._times.largest(seconds, self.limits.batch)

    def _expect(self, size: int, deadline: float, priority: int, ready_in: float, decoded: bool) -> float:
        """Expected seconds until `size` rows that arrive now are answered.

        Decoding and the engine work at the same time, so the later one counts. After decoding, rows need the time of
        rows in a short queue, which is more than one run: they also wait for the run in progress, and share the cores.
        """
        ahead = self._queue.ahead_of(priority, deadline)
        if not decoded:
            ahead += int(self._arriving.ahead_of(priority, deadline))
        batch = self._run_size(deadline - self._clock())
        runs, rest = divmod(ahead, batch)
        others = -(-max(0, self.slots.waiting - self._queue.rows) // batch)  # queues that share the engine take turns
        runs += min(others, runs + 1)
        running = sum(item.size for items in self._running.values() for item in items)
        before = runs * self._times.predict(batch) + (self._times.predict(running) / 2 if running else 0.0)
        own = self._times.predict(min(batch, rest + size)) * -(-size // batch)
        after_decoding = ready_in * self._decode_error.high + max(own, self._after.high) if ready_in else 0.0
        return max(after_decoding, before / self.slots.count + own)

    def _pump(self) -> None:
        self._scheduled = False
        while self._queue and self.slots.take(full=self._queue.rows >= self.limits.batch):
            now = self._clock()
            batch, late = self._queue.take(now, self.limits.batch, self._times.predict)
            for item in late:
                item.fail(DeadlineExceeded("the deadline passed while the request waited"))
            if not batch:
                self.slots.give_back()
                continue
            task = eager.start(self._run(batch, now), self._loop)
            if task is None:  # it ran on the event loop; other callbacks have a turn before the next batch
                self._loop.call_soon(self.slots.give_back)
            else:
                self._running[task] = batch
                task.add_done_callback(self._free)

    def _free(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        self.slots.give_back()

    async def _run(self, batch: Sequence[QueueItem], started: float) -> None:
        try:
            rows = batch[0].rows if len(batch) == 1 else np.concatenate([item.rows for item in batch])
            logits = await self._execute(rows)
            if len(logits) != len(rows):
                raise EngineFailed(f"the engine answered {len(logits)} rows for {len(rows)}")
            self._deliver(batch, BatchRun(logits, len(rows), started, self._clock()))
        except ConvoyError as error:
            _fail_all(batch, error)
        except asyncio.CancelledError:
            _fail_all(batch, NotReady("the server is stopping; retry"))
            raise
        except Exception as error:
            log.exception("a batch failed")
            _fail_all(batch, EngineFailed(f"the engine failed: {type(error).__name__}"))

    def _deliver(self, batch: Sequence[QueueItem], run: BatchRun) -> None:
        seconds = run.finished - run.started
        if batch[-1].joined:
            usual = max(self._times.predict(run.size), self._after.high)
            self._after.learn(min(run.finished - batch[-1].joined, SURPRISE * usual))
        self._times.learn(run.size, seconds)
        self._patience = self._full_run_patience()
        start = 0
        bad_rows = non_finite_rows(run.logits)
        if bad_rows is not None:  # the batch is ranked as a whole, and NumPy warns about infinities
            run = replace(run, logits=np.where(bad_rows[:, np.newaxis], np.float32(0), run.logits))
        for item in batch:
            stop = start + item.size
            if not item.done():
                if item.deadline < run.finished:
                    item.fail(DeadlineExceeded("the deadline passed while the engine ran"))
                elif bad_rows is not None and bad_rows[start:stop].any():
                    item.fail(non_finite_error(item.rows[bad_rows[start:stop]]))
                else:
                    item.answer(Answer(run, start, stop))
            start = stop
        self._on_run(run.size, seconds)

    def _ring(self) -> float:
        """Fails late items. Returns the next deadline."""
        self._expire(self._clock())
        running = (item.deadline for batch in self._running.values() for item in batch if not item.gone)
        return min(self._queue.next_deadline(), min(running, default=NEVER))


def _fail_all(batch: Sequence[QueueItem], error: ConvoyError) -> None:
    for item in batch:
        item.fail(error)
