"""The queue of an ensemble or cascade, with the interface of a batcher."""

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
from serve.ensembles.ensemble import EnsembleResult
from serve.ensembles.multi_view import Views
from serve.telemetry.definitions import MEMBER, MEMBER_ENGINE, MEMBER_TIME, SAMPLES, SECONDS, STAGE_IMAGES
from serve.telemetry.recorder import Metrics


class Composition(Protocol):
    """An ensemble or a cascade."""

    @property
    def waiting_rows(self) -> int:
        """Rows of this composition in the queues of its members."""
        ...

    async def run(self, views: Views, deadline: float, priority: int = 0) -> EnsembleResult:
        """Runs the members on views; `deadline` in monotonic seconds. Raises ConvoyError if too few answer."""
        ...

    def admit(self, images: int, deadline: float, priority: int = 0, ready_in: float = 0.0) -> None:
        """As `Batcher.admit`, for images. Raises Overloaded if too few members could answer in time."""
        ...

    def arrival(
        self, images: int, deadline: float, priority: int = 0, ready_in: float = 0.0
    ) -> AbstractContextManager[None]:
        """As `Batcher.arrival`, for images."""
        ...


class EnsembleRunner:
    """Answers requests by running a composition. Lives on one event loop.

    Rows wait in the members' queues, where they share batches with the rows of other requests. Here, each request is
    a run.
    """

    def __init__(
        self,
        composition: Composition,
        limits: BatcherLimits,
        on_result: Callable[[EnsembleResult, int], None] = lambda result, images: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_result` gets each result and its number of images."""
        self.limits = limits
        self._composition = composition
        self._on_result = on_result
        self._clock = clock
        self._running: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def waiting_rows(self) -> int:
        """Rows of this composition in the members' queues."""
        return self._composition.waiting_rows

    def admit(
        self, size: int, deadline: float, priority: int = 0, ready_in: float = 0.0, decoded: bool = False
    ) -> None:
        """Raises NotReady when closed, and a member's error when too few members would take `size` images."""
        self._check_open()
        self._composition.admit(size, deadline, priority, ready_in)

    @contextmanager
    def arrival(self, size: int, deadline: float, priority: int = 0, ready_in: float = 0.0) -> Iterator[None]:
        """Admits images that are still being decoded; until then they count in the members' queues."""
        self._check_open()
        with self._composition.arrival(size, deadline, priority, ready_in):
            yield

    def submit(self, rows: Views, deadline: float, priority: int = 0) -> asyncio.Future[Answer]:
        """Runs the members. `deadline` in monotonic seconds. Raises NotReady when closed."""
        self._check_open()
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._answer(future, rows, deadline, priority))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        future.add_done_callback(lambda _: task.cancel())  # cancels the members' runs when the request is cancelled
        return future

    async def close(self) -> None:
        """Refuses new requests and waits for the running ones."""
        self._closed = True
        if self._running:
            await asyncio.wait(self._running)

    def _check_open(self) -> None:
        if self._closed:
            raise NotReady("the model is being unloaded; retry")

    async def _answer(self, future: asyncio.Future[Answer], views: Views, deadline: float, priority: int) -> None:
        try:
            result = await self._composition.run(views, deadline, priority)
            self._on_result(result, len(views))
            if isinstance(result.scores, ConvoyError):
                _finish(future, result.scores)
                return
            run = BatchRun(np.ascontiguousarray(result.scores), len(views), result.started, self._clock())
            _finish(future, Answer(run, 0, len(views), result.members))
        except asyncio.CancelledError:
            if not future.done():
                future.set_exception(NotReady("the server is stopping; retry"))
            raise
        except Exception as error:  # noqa: BLE001 the boundary of a request: its future must end on every path
            _finish(future, EngineFailed(f"the answers could not be combined: {type(error).__name__}"))


class MemberRecorder:
    """Records the member results of one ensemble or cascade as metrics."""

    def __init__(self, metrics: Metrics, model: str, version: str) -> None:
        self._values = partial(metrics.values, model=model, version=version)
        self._samples = self._values(SAMPLES)

    def record(self, result: EnsembleResult, images: int) -> None:
        """Counts a request of `images` images."""
        self._samples[0] += images
        for member in result.members:
            self._values(MEMBER, member=member.model, outcome=member.outcome)[0] += 1
            self._values(MEMBER_ENGINE, member=member.model)[0] += member.engine_seconds
            times = self._values(MEMBER_TIME, member=member.model)
            times[bisect_left(SECONDS, member.seconds)] += 1
            times[-1] += member.seconds
        for stage, count in result.images_by_stage:
            self._values(STAGE_IMAGES, stage=stage)[0] += count


def _finish(future: asyncio.Future[Answer], result: Answer | ConvoyError) -> None:
    if future.done():
        return
    if isinstance(result, ConvoyError):
        future.set_exception(result)
    else:
        future.set_result(result)
