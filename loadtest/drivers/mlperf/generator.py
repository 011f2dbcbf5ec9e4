"""The process that runs LoadGen and, in it, the client or the graph.

A process of its own, because LoadGen cannot be stopped: Ctrl-C ends this process.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

from convoy.errors import ConfigError, ConvoyError
from loadtest.coordinator import interrupts_ignored
from loadtest.drivers.mlperf.loadgen import LoadgenRun, import_loadgen, run_loadgen
from loadtest.drivers.mlperf.results import LoadgenResult
from loadtest.drivers.mlperf.system import Account, Subject, System
from loadtest.worker.process import GC_THRESHOLD, allow_many_files

# LoadGen's thread needs the interpreter's lock for each query. CPython's default of 5 ms would be part of the latency.
SWITCH_S = 0.0005
PROGRESS_S = 0.25
FIRST_SAMPLES = 16
SINGLE_SAMPLES = 10

Reply = TypeVar("Reply")
OnProgress = Callable[[int, int], None]  # samples answered, samples failed


@dataclass(frozen=True)
class WarmUp:
    """What the warm-up found: samples/s of a saturated system, and the least seconds of a single sample."""

    samples_per_s: float
    single_s: float


@dataclass(frozen=True)
class Measured:
    """A LoadGen run; `client_cores` is the client thread's share of a core. `result` is None in accuracy mode."""

    result: LoadgenResult | None
    account: Account
    seconds: float
    client_cores: float


def warm_up(system: System, seconds: float) -> WarmUp:
    """Measures a system without LoadGen. Raises ConvoyError if a sample fails."""
    system.account = Account()
    system.load(list(range(system.sample_count)))
    single_s = min(_drive(system, 1) for _ in range(SINGLE_SAMPLES))
    count = FIRST_SAMPLES
    while (taken := _drive(system, count)) < seconds:
        count *= max(2, min(10, round(1.2 * seconds / taken)))
    return WarmUp(count / taken, single_s)


def _drive(system: System, count: int) -> float:
    """Seconds until `count` samples that are issued at once are complete."""
    left, done = count, threading.Event()

    def complete(ids: Sequence[int], classes: Sequence[int]) -> None:
        nonlocal left
        left -= len(ids)
        if not left:
            done.set()

    system.on_complete = complete
    start = monotonic()
    system.issue(list(range(count)), [number % system.sample_count for number in range(count)])
    done.wait()
    taken = monotonic() - start
    if failures := system.account.failures:
        kind, failed = failures.most_common(1)[0]
        text = system.account.texts[kind]
        raise ConvoyError(f"{failed} samples failed before the run: {kind}" + (f": {text}" if text else ""))
    return taken


def _measure(run: LoadgenRun, folder: Path, system: System, pipe: Connection) -> Measured:
    system.account = Account()
    ended = threading.Event()

    def report() -> None:
        while not ended.wait(PROGRESS_S):
            account = system.account
            pipe.send(("progress", (account.answered, account.failed)))

    reporter = threading.Thread(target=report, daemon=True)
    start, cpu = monotonic(), system.client_cpu_s()
    reporter.start()
    try:
        result = run_loadgen(run, system, folder)
        seconds = monotonic() - start
    finally:
        ended.set()
        reporter.join()
    return Measured(result, system.account, seconds, (system.client_cpu_s() - cpu) / seconds)


def _serve(subject: Subject, seed: int, pipe: Connection) -> None:
    """Entry point of the process: opens the subject, then performs what the parent asks for until it sends None."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.setswitchinterval(SWITCH_S)
    try:
        import_loadgen()
        allow_many_files()
        system = subject.open(seed)
    except ConvoyError as error:
        pipe.send(("error", str(error)))
        return
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    pipe.send(("done", system.about))
    while (work := pipe.recv()) is not None:
        try:
            if isinstance(work, tuple):
                run, folder = work
                pipe.send(("done", _measure(run, folder, system, pipe)))
            else:
                pipe.send(("done", warm_up(system, work)))
        except ConvoyError as error:
            pipe.send(("error", str(error)))
    system.close()


class Generator:
    """The parent's side of the process. `about` describes the samples."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.about: str = self._reply(lambda answered, failed: None)

    def warm_up(self, seconds: float) -> WarmUp:
        """Raises ConvoyError if a sample fails."""
        self._pipe.send(seconds)
        found: WarmUp = self._reply(lambda answered, failed: None)
        return found

    def measure(self, run: LoadgenRun, folder: Path, on_progress: OnProgress) -> Measured:
        """Runs LoadGen. Raises ConvoyError if it wrote no result."""
        self._pipe.send((run, folder))
        measured: Measured = self._reply(on_progress)
        return measured

    def _reply(self, on_progress: OnProgress) -> Any:
        while True:
            try:
                kind, content = self._pipe.recv()
            except EOFError as error:
                raise ConvoyError("the generator's process died; its error is above") from error
            if kind == "done":
                return content
            if kind == "error":
                raise ConfigError(content)
            on_progress(*content)


@contextlib.contextmanager
def generating(subject: Subject, seed: int) -> Iterator[Generator]:
    """Starts the process, and ends it with the block. Raises ConfigError if the subject cannot be opened."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(subject, seed, theirs), daemon=True)
    with interrupts_ignored():
        process.start()
    theirs.close()
    try:
        yield Generator(ours)
        with contextlib.suppress(OSError):  # the process has ended
            ours.send(None)
        process.join()
    finally:
        ours.close()
        if process.is_alive():
            process.kill()
            process.join()
