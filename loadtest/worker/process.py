"""The process of one worker."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import queue
import resource
import signal
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from time import monotonic, process_time

import uvloop

from convoy.errors import ConvoyError
from loadtest.arrivals import closed_schedule, open_schedule
from loadtest.payloads import prepare
from loadtest.plan import Plan
from loadtest.wire.calls import Transport
from loadtest.wire.requests import Request, build_requests
from loadtest.worker.drive import ClosedDriver, Driver, OpenDriver
from loadtest.worker.records import WorkerMessage
from loadtest.worker.session import Session

MESSAGE_S = 0.25  # time between two messages to the parent
GC_THRESHOLD = 100_000  # reference counts free the objects of a run; collections would only pause the measurement


def work(plan: Plan, number: int, pipe: Connection) -> None:
    """Entry point. Sends ("ready", (descriptions, numbers of labelled payloads)), both by traffic, or ("error", text);
    receives the start time; then runs and sends a `WorkerMessage` several times a second."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides how a run ends
    try:
        allow_many_files()
        prepared = [prepare(traffic.payload, plan.seed + position) for position, traffic in enumerate(plan.traffic)]
        requests = [
            build_requests(plan.target, traffic, payloads.items)
            for traffic, payloads in zip(plan.traffic, prepared, strict=True)
        ]
    except ConvoyError as error:
        pipe.send(("error", str(error)))
        return
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    labelled = tuple(sum(item.expected is not None for item in payloads.items) for payloads in prepared)
    pipe.send(("ready", (tuple(payloads.about for payloads in prepared), labelled)))
    start = pipe.recv()
    if start is not None:
        uvloop.run(Worker(plan, number, pipe, requests).run(start))


def allow_many_files() -> None:
    """Raises this process's limit of open files to the most that it may have: each connection is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def starvation() -> tuple[float, int]:
    """Seconds that this process's main thread was runnable without a core, and how often it was scheduled.

    Zeros where the kernel has no schedstat. The wait is part of every latency, and no CPU figure shows it.
    """
    try:
        _, waited_ns, times = Path("/proc/self/schedstat").read_text().split()
    except (OSError, ValueError):
        return 0.0, 0
    return int(waited_ns) / 1e9, int(times)


class Worker:
    """Runs its share of a plan."""

    def __init__(self, plan: Plan, number: int, pipe: Connection, requests: list[tuple[Request, ...]]) -> None:
        self._plan = plan
        self._number = number
        self._requests = requests
        self._pipe = pipe
        self._outbox: queue.SimpleQueue[WorkerMessage | None] = queue.SimpleQueue()
        self._max_in_flight = 0
        self._began = (0.0, 0.0, 0)

    async def run(self, start: float) -> None:
        """Sends this worker's requests from `start` on, and reports to the parent until all have ended."""
        session = Session(self._plan, self._requests, start)
        driver = self._driver(session)
        session.on_done = driver.completed
        writer = threading.Thread(target=self._write, daemon=True)
        writer.start()
        self._began = process_time(), *starvation()
        driver.begin(start, start + self._plan.end_s)
        await self._until_done(session, driver, start)
        driver.close()
        await session.transport.close()
        self._queue_message(session, driver, last=True)
        self._outbox.put(None)
        await asyncio.to_thread(writer.join)

    def _driver(self, session: Session) -> Driver:
        plan, number = self._plan, self._number
        counts = tuple(len(requests) for requests in self._requests)
        if not plan.load.closed:
            return OpenDriver(open_schedule(plan, counts, number), session.issue)
        share = plan.load.concurrency // plan.workers + (number < plan.load.concurrency % plan.workers)
        return ClosedDriver(closed_schedule(plan, counts, number), session.issue, share, plan.load.think_s)

    async def _until_done(self, session: Session, driver: Driver, start: float) -> None:
        """Returns when the schedule and all requests in flight have ended, at the latest after the request timeout."""
        transport: Transport = session.transport
        latest = start + self._plan.end_s + self._plan.target.timeout_s + 1.0
        last_message = monotonic()
        while not (driver.ended.is_set() and not transport.in_flight and not session.pending) and monotonic() < latest:
            await asyncio.sleep(0.02)
            self._max_in_flight = max(self._max_in_flight, transport.in_flight)
            if self._pipe.poll():  # not add_reader, which would make the pipe non-blocking for the writing thread too
                self._pipe.recv()
                driver.stop()
            if monotonic() - last_message > MESSAGE_S:
                last_message = monotonic()
                self._queue_message(session, driver)

    def _queue_message(self, session: Session, driver: Driver, last: bool = False) -> None:
        recorder = session.recorder
        used, starved_before, ran_before = self._began
        starved, ran = starvation()
        self._outbox.put(
            WorkerMessage(
                self._number,
                recorder.take(),
                tuple(recorder.arms),
                dict(session.stages_ms),
                dict(session.failure_texts),
                process_time() - used,
                starved - starved_before,
                ran - ran_before,
                session.transport.in_flight,
                self._max_in_flight,
                driver.issued,
                driver.unsent,
                last,
            )
        )

    def _write(self) -> None:
        """Runs in a thread: a full pipe must not block the event loop that sends requests."""
        while (message := self._outbox.get()) is not None:
            self._pipe.send(message)
