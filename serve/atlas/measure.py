"""Measures one cell of the atlas in its own process, so that peak memory and an out-of-memory kill belong to that cell."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from convoy.engine_names import Precision
from convoy.errors import EngineFailed
from models.engines.backends.registry import find_backend
from serve.atlas.data import Cell, Interval, Power
from serve.config.schema import Power as Declared
from serve.energy.discovery import find_sources
from serve.energy.source import CPU, Source

LEAST_RUNS, FEWEST_RUNS = 9, 5  # the second when nine runs take more than three times the wanted seconds
CONFIDENCE = 0.95
STATUS, CLEAR_PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Task:
    """The work of one process: a graph in an engine and precision, threads, batch size, and the minimum seconds of runs."""

    network: str
    graph: Path
    engine: str
    precision: Precision
    threads: int
    batch: int
    seconds: float
    power: Declared
    idle_watts: float | None


def measure_apart(task: Task) -> Cell:
    """Runs `measure` in a new process. Raises EngineFailed when the process is killed."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        try:
            return pool.submit(measure, task).result()
        except BrokenProcessPool as error:
            raise EngineFailed("its process was killed; most likely there is not enough memory") from error


def measure(task: Task) -> Cell:
    """Loads, warms up and runs the engine. Time and energy cover the runs after the warm-up."""
    CLEAR_PEAK.write_text("5")
    before = _memory("VmRSS")
    engine = find_backend(task.engine).load(task.graph, task.threads, task.precision)
    shape = (task.batch, *engine.input.shape[1:])
    rows = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    for _ in range(2):
        engine.run(rows)
    sources = cpu_sources(task.power)
    joules = total_joules(sources)
    start = last = time.perf_counter()
    times: list[float] = []
    while not _enough(times, last - start, task.seconds):
        engine.run(rows)
        now = time.perf_counter()
        times.append(now - last)
        last = now
    used = total_joules(sources) - joules
    power = _power(sources, used, last - start, len(times) * task.batch, task.idle_watts) if sources else None
    return Cell(
        network=task.network,
        batch=task.batch,
        seconds=median_interval(times),
        runs=len(times),
        memory_bytes=_memory("VmHWM") - before,
        power=power,
    )


def median_interval(values: Sequence[float]) -> Interval:
    """The median and its interval between order statistics: David and Nagaraja, "Order Statistics", section 7.1.

    With fewer than 6 values no such interval reaches 95 %; then it is their range.
    """
    ordered = sorted(values)
    count = len(ordered)
    outside, rank = 0.0, 0
    while rank < count // 2:
        outside += 2 * math.comb(count, rank) / 2**count
        if outside > 1 - CONFIDENCE:
            break
        rank += 1
    low = max(rank - 1, 0)
    return Interval(median=float(np.median(ordered)), low=ordered[low], high=ordered[count - 1 - low])


def cpu_sources(power: Declared) -> list[Source]:
    """The energy sources of the CPU."""
    return [source for source in find_sources(power) if source.device == CPU]


def total_joules(sources: Sequence[Source]) -> float:
    """The sum of the sources' counters."""
    return sum(source.joules() for source in sources)


def idle_watts(power: Declared, seconds: float = 2.0) -> float | None:
    """Watts at idle: declared, or measured now for `seconds`. None without a source."""
    sources = cpu_sources(power)
    if not sources:
        return None
    before, start = total_joules(sources), time.perf_counter()
    time.sleep(seconds)
    measured = (total_joules(sources) - before) / (time.perf_counter() - start)
    declared = [source.idle_watts for source in sources if source.idle_watts is not None]
    return sum(declared) if len(declared) == len(sources) else measured


def _enough(times: Sequence[float], passed: float, wanted: float) -> bool:
    if len(times) >= LEAST_RUNS:
        return passed >= wanted
    return len(times) >= FEWEST_RUNS and passed >= 3 * wanted


def _power(sources: Sequence[Source], joules: float, seconds: float, images: int, idle: float | None) -> Power:
    idle_watts = idle or 0.0
    return Power(
        watts=joules / seconds,
        idle_watts=idle_watts,
        joules_per_image=max(0.0, joules - idle_watts * seconds) / images,
        source="+".join(sorted({source.source for source in sources})),
        method="modelled" if any(source.method == "modelled" for source in sources) else "measured",
    )


def _memory(name: str) -> int:
    """Bytes of this process, now (VmRSS) or at most (VmHWM), see proc(5). getrusage would include the parent's peak."""
    lines = STATUS.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024
