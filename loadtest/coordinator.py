"""Runs a plan: starts the workers at a common time, folds their records and scrapes the server's metrics."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from time import monotonic, process_time

from convoy.errors import ConfigError, ConvoyError
from loadtest.plan import Plan
from loadtest.scrape import Scraper, ServerSide
from loadtest.stats.fold import Fold
from loadtest.wire.metadata import resolve
from loadtest.worker.process import work
from loadtest.worker.records import WorkerMessage, parse_records

START_DELAY_S = 0.1
READY_S = 120.0
BEAT_S = 0.25
GRACE_S = 10.0


@dataclass
class Run:
    """A finished or running run: its sums and the generator's own figures. CPU in seconds by worker; host in cores.

    `worker_starved` holds, by worker, the seconds it was runnable without a core and how often it was scheduled.

    `about` describes the payloads of each traffic, `labelled` counts its distinct labelled payloads.
    """

    plan: Plan
    fold: Fold
    about: tuple[str, ...] = ()
    labelled: tuple[int, ...] = ()
    worker_cpu_s: dict[int, float] = field(default_factory=dict)
    worker_starved: dict[int, tuple[float, int]] = field(default_factory=dict)
    parent_cpu_s: float = 0.0
    issued: dict[int, int] = field(default_factory=dict)
    unsent: bool = False  # some requests were due but never sent, because the workers were too late
    in_flight: dict[int, int] = field(default_factory=dict)
    max_in_flight: dict[int, int] = field(default_factory=dict)
    stages_ms: dict[str, tuple[float, int]] = field(default_factory=dict)
    failure_texts: dict[int, str] = field(default_factory=dict)  # the first message of each outcome that is a failure
    wall_s: float = 0.0
    host_busy_cores: float = 0.0
    host_stolen_cores: float = 0.0
    server: ServerSide | None = None
    stopped_s: float | None = None  # when the user interrupted the run, from its start
    driver: str = "loadtest"


Progress = Callable[[Run, float], None]


def run_plan(plan: Plan, progress: Progress | None = None) -> Run:
    """Runs a plan. `progress` is called about four times a second with the sums so far and the seconds since the start.

    Raises ConfigError for a plan that cannot be sent, ConvoyError when a worker dies.
    """
    plan = resolve(plan)
    return _Parent(plan, progress or (lambda run, seconds: None)).run()


class _Parent:
    """The parent process of the workers of one run."""

    def __init__(self, plan: Plan, progress: Progress) -> None:
        self._plan = plan
        self._progress = progress
        self._run = Run(plan, Fold(plan))
        self._pipes: list[Connection] = []
        self._processes: list[BaseProcess] = []
        self._stages: dict[int, dict[str, tuple[float, int]]] = {}

    def run(self) -> Run:
        context = multiprocessing.get_context("spawn")
        try:
            for number in range(self._plan.workers):
                ours, theirs = context.Pipe()
                process: BaseProcess = context.Process(target=work, args=(self._plan, number, theirs), daemon=True)
                with interrupts_ignored():
                    process.start()
                theirs.close()
                self._pipes.append(ours)
                self._processes.append(process)
            self._run.about, self._run.labelled = self._all_ready()
            self._measure()
        finally:
            for process in self._processes:
                process.join(GRACE_S if self._run.wall_s else 0.5)
                if process.is_alive():
                    process.kill()
                    process.join()
            for pipe in self._pipes:
                pipe.close()
        return self._run

    def _all_ready(self) -> tuple[tuple[str, ...], tuple[int, ...]]:
        return [self._ready(pipe) for pipe in self._pipes][-1]

    def _ready(self, pipe: Connection) -> tuple[tuple[str, ...], tuple[int, ...]]:
        if not pipe.poll(READY_S):
            raise ConvoyError(f"a worker was not ready within {READY_S:g} s")
        try:
            kind, content = pipe.recv()
        except EOFError as error:
            raise ConvoyError("a worker died before it was ready; its error is above") from error
        if kind == "error":
            raise ConfigError(content)
        about, labelled = content
        return about, labelled

    def _measure(self) -> None:
        start = monotonic() + START_DELAY_S
        scraper = Scraper(self._plan.target.metrics_url, start + self._plan.warmup_s)
        for pipe in self._pipes:
            pipe.send(start)
        cpu, host = process_time(), _host_seconds()
        self._listen(start)
        self._run.wall_s = monotonic() - start
        self._run.parent_cpu_s = process_time() - cpu
        busy, stolen = (after - before for after, before in zip(_host_seconds(), host, strict=True))
        self._run.host_busy_cores, self._run.host_stolen_cores = busy / self._run.wall_s, stolen / self._run.wall_s
        self._run.server = scraper.finish()
        for stages in self._stages.values():
            for stage, (total, count) in stages.items():
                known = self._run.stages_ms.get(stage, (0.0, 0))
                self._run.stages_ms[stage] = (known[0] + total, known[1] + count)

    def _listen(self, start: float) -> None:
        with _interrupts() as interrupted:
            self._listen_until_all_ended(start, interrupted)

    def _listen_until_all_ended(self, start: float, interrupted: threading.Event) -> None:
        open_pipes = list(self._pipes)
        latest = start + self._plan.end_s + self._plan.target.timeout_s + GRACE_S
        while open_pipes:
            for pipe in wait(open_pipes, BEAT_S):
                assert isinstance(pipe, Connection)
                if self._take(pipe):
                    open_pipes.remove(pipe)
            self._progress(self._run, monotonic() - start)
            if interrupted.is_set() and self._run.stopped_s is None:
                self._stop(monotonic() - start, open_pipes)
            if monotonic() > latest:
                raise ConvoyError("a worker did not end in time; its requests cannot be accounted for")

    def _take(self, pipe: Connection) -> bool:
        try:
            message: WorkerMessage = pipe.recv()
        except EOFError as error:
            raise ConvoyError("a worker died; the requests it had in flight cannot be accounted for") from error
        run, number = self._run, message.worker
        run.fold.add(parse_records(message.records), message.arms)
        run.worker_cpu_s[number] = message.cpu_s
        run.worker_starved[number] = (message.starved_s, message.ran)
        run.unsent |= message.unsent
        run.failure_texts = {**message.failure_texts, **run.failure_texts}
        run.issued[number] = message.issued
        run.in_flight[number] = message.in_flight
        run.max_in_flight[number] = message.max_in_flight
        self._stages[number] = message.stages_ms
        return message.last

    def _stop(self, seconds: float, pipes: list[Connection]) -> None:
        self._run.stopped_s = seconds
        for pipe in pipes:
            pipe.send("stop")


@contextlib.contextmanager
def interrupts_ignored() -> Iterator[None]:
    """A child started in this block ignores Ctrl-C from its first instruction: the parent decides how a run ends."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """The first Ctrl-C sets an event, so that no message is left half read; the second ends the program as usual."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def interrupt(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, before)
        event.set()

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)


def _host_seconds() -> tuple[float, float]:
    """Busy and stolen CPU seconds of this machine since boot; zeros where /proc/stat does not exist."""
    try:
        with open("/proc/stat") as file:
            ticks = [int(value) for value in file.readline().split()[1:9]]
    except OSError:
        return 0.0, 0.0
    hertz = os.sysconf("SC_CLK_TCK")
    return (sum(ticks[:3]) + sum(ticks[5:8])) / hertz, ticks[7] / hertz
