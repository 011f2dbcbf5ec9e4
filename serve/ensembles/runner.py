"""The line of a model that is made of others: to its callers it looks like a batcher."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Protocol

import numpy as np

from convoy.errors import ConvoyError, EngineFailed, NotReady
from serve.batching.line import BatcherLimits
from serve.batching.results import Answer, BatchRun
from serve.ensembles.ensemble import Poll
from serve.ensembles.multi_view import Views
from serve.telemetry.definitions import MEMBER, MEMBER_ENGINE, MEMBER_TIME, SAMPLES, SECONDS, STAGE_IMAGES
from serve.telemetry.recorder import Metrics


class Plan(Protocol):
    """Who is asked and how the answers become one."""

    @property
    def waiting_rows(self) -> int: ...

    async def poll(self, looks: Views, deadline: float, priority: int = 0) -> Poll: ...

    def admit(self, images: int, deadline: float, priority: int = 0, ready_in: float = 0.0) -> None: ...

    def arrival(
        self, images: int, deadline: float, priority: int = 0, ready_in: float = 0.0
    ) -> AbstractContextManager[None]: ...


class EnsembleRunner:
    """Answers requests by polling a plan. Lives on one event loop.

    The rows wait in the members' lines, where they meet the rows of other requests; each request is a run of its own here.
    """

    def __init__(
        self,
        plan: Plan,
        limits: BatcherLimits,
        on_poll: Callable[[Poll, int], None] = lambda poll, images: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits = limits
        self._plan = plan
        self._on_poll = on_poll
        self._clock = clock
        self._running: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def waiting_rows(self) -> int:
        return self._plan.waiting_rows

    def admit(
        self, size: int, deadline: float, priority: int = 0, ready_in: float = 0.0, decoded: bool = False
    ) -> None:
        """Raises NotReady when closed, and what members raise where too few of them could answer."""
        self._check_open()
        self._plan.admit(size, deadline, priority, ready_in)

    @contextmanager
    def arrival(self, size: int, deadline: float, priority: int = 0, ready_in: float = 0.0) -> Iterator[None]:
        """Admits images whose looks are still being made; for that time they count in the members' lines."""
        self._check_open()
        with self._plan.arrival(size, deadline, priority, ready_in):
            yield

    def submit(self, rows: Views, deadline: float, priority: int = 0) -> asyncio.Future[Answer]:
        """Asks the members. `deadline` in monotonic seconds. Raises NotReady when closed."""
        self._check_open()
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._answer(future, rows, deadline, priority))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        future.add_done_callback(lambda _: task.cancel())  # nobody waits any more: the members need not answer
        return future

    async def close(self) -> None:
        """Lets what is under way finish."""
        self._closed = True
        if self._running:
            await asyncio.wait(self._running)

    def _check_open(self) -> None:
        if self._closed:
            raise NotReady("the model is being unloaded; retry")

    async def _answer(self, future: asyncio.Future[Answer], looks: Views, deadline: float, priority: int) -> None:
        try:
            poll = await self._plan.poll(looks, deadline, priority)
            self._on_poll(poll, len(looks))
            if isinstance(poll.scores, ConvoyError):
                _finish(future, poll.scores)
                return
            run = BatchRun(np.ascontiguousarray(poll.scores), len(looks), poll.started, self._clock())
            _finish(future, Answer(run, 0, len(looks), poll.parts))
        except asyncio.CancelledError:
            if not future.done():
                future.set_exception(NotReady("the server is stopping; retry"))
            raise
        except Exception as error:  # noqa: BLE001 the boundary of a request: whatever happens, its future ends
            _finish(future, EngineFailed(f"the answers could not be combined: {type(error).__name__}"))


class PollRecorder:
    """Records who took part in the answers of one ensemble or cascade."""

    def __init__(self, metrics: Metrics, model: str, version: str) -> None:
        self._values = partial(metrics.values, model=model, version=version)
        self._samples = self._values(SAMPLES)

    def record(self, poll: Poll, images: int) -> None:
        self._samples[0] += images
        for part in poll.parts:
            self._values(MEMBER, member=part.model, outcome=part.outcome)[0] += 1
            self._values(MEMBER_ENGINE, member=part.model)[0] += part.engine_seconds
            times = self._values(MEMBER_TIME, member=part.model)
            times[bisect_left(SECONDS, part.seconds)] += 1
            times[-1] += part.seconds
        for stage, count in poll.asked:
            self._values(STAGE_IMAGES, stage=stage)[0] += count


def _finish(future: asyncio.Future[Answer], result: Answer | ConvoyError) -> None:
    if future.done():
        return
    if isinstance(result, ConvoyError):
        future.set_exception(result)
    else:
        future.set_result(result)
