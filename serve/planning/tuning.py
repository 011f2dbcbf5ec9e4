"""Which engine, precision, number of threads and batch limit serve a model fastest on this machine within a target of latency."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from convoy.errors import ConfigError, ConvoyError
from models.artifact import Artifact
from models.engines.backends.registry import installed_backends
from models.engines.build.builder import Report, build_engine
from models.engines.build.eval_data import find_eval_source
from models.engines.engine import Engine
from models.engines.spec import EngineSpec
from models.engines.store.store import Store
from serve.batching.latency_curve import bucket_sizes, warm_up
from serve.config.schema import ModelConfig
from serve.executors.engine_selection import select_engine, serves_artifact

RUNS_AHEAD = 2  # a request waits for the run that it finds, and then for its own
FEWEST_RUNS = 20


@dataclass(frozen=True)
class Measured:
    """One way to run: images/s and the 99th percentile of seconds per run at a batch size, over so many runs."""

    engine: str
    precision: str
    threads: int
    batch: int
    images_per_second: float
    p99_seconds: float
    runs: int

    @property
    def request_seconds(self) -> float:
        """What a request waits for the engine at most, 99 times of 100."""
        return RUNS_AHEAD * self.p99_seconds


@dataclass(frozen=True)
class Skipped:
    """What was not tried, and why."""

    engine: str
    precision: str
    reason: str


def choose(measured: Iterable[Measured], slo_seconds: float) -> Measured:
    """The way with the most images/s among those that keep to the target. Raises ConfigError when none does."""
    ways = list(measured)
    fitting = [one for one in ways if one.request_seconds <= slo_seconds]
    if fitting:
        return max(fitting, key=lambda one: one.images_per_second)
    fastest = min(ways, key=lambda one: one.request_seconds)
    raise ConfigError(
        f"nothing here answers within {slo_seconds * 1000:g} ms: {fastest.engine} {fastest.precision} takes "
        f"{fastest.request_seconds * 1000:.1f} ms for one image; allow that much, or serve a smaller network"
    )


def explore(
    model: ModelConfig,
    store: Store,
    cores: int,
    slo_seconds: float,
    seconds: float,
    report: Report = lambda step, done, total: None,
) -> tuple[list[Measured], list[Skipped]]:
    """Builds and measures every engine that the gate accepts, with one thread up to all cores, for `seconds` a batch size.

    Batches grow until one is too slow for the target.
    """
    artifact = Artifact.load(model.folder)
    source = find_eval_source(artifact)
    orders = [
        EngineSpec(artifact, one, precision, source) for one in installed_backends() for precision in one.precisions()
    ]
    measured: list[Measured] = []
    skipped: list[Skipped] = []
    for number, order in enumerate(orders):
        report("engines", number, len(orders))
        way = model.model_copy(update={"engine": order.backend.name, "precision": order.precision})
        if problem := _unfit(way, order, store, report):
            skipped.append(Skipped(order.backend.name, order.precision, problem))
            continue
        for threads in thread_counts(cores):
            engine = select_engine(order, store).load(threads, model.gpus)["image"]
            blank = Measured(order.backend.name, order.precision, threads, 0, 0.0, 0.0, 0)
            measured += measure(blank, engine, bucket_sizes(model.max_batch), slo_seconds, seconds)
    report("engines", len(orders), len(orders))
    return measured, skipped


def measure(
    blank: Measured,
    engine: Engine,
    sizes: Sequence[int],
    slo_seconds: float,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Measured]:
    """Runs every size for `seconds` and some runs at least; ends with the first that is too slow."""
    found: list[Measured] = []
    for size in sizes:
        warm_up(engine, (size,))
        times = _times(engine, size, seconds, clock)
        p99 = float(np.quantile(times, 0.99, method="higher"))
        speed = size / float(np.median(times))
        found.append(replace(blank, batch=size, images_per_second=speed, p99_seconds=p99, runs=len(times)))
        if found[-1].request_seconds > slo_seconds:
            break
    return found


def thread_counts(cores: int) -> list[int]:
    """1, 2, 4, … and all cores."""
    return list(bucket_sizes(cores))


def _unfit(way: ModelConfig, order: EngineSpec, store: Store, report: Report) -> str:
    """Why an engine is not to be tried; empty when it is built and accepted."""
    if serves_artifact(way):
        return ""
    try:
        entry = store.find(order) or build_engine(order, store, report)
    except ConvoyError as error:
        return str(error)
    return "" if entry.status == "accepted" else f"{entry.status}: {entry.manifest.judgement['reason']}"


def _times(engine: Engine, size: int, seconds: float, clock: Callable[[], float]) -> list[float]:
    rows = np.zeros((size, *engine.input.shape[1:]), engine.input.dtype)
    times: list[float] = []
    begun = clock()
    while len(times) < FEWEST_RUNS or clock() - begun < seconds:
        start = clock()
        engine.run(rows)
        times.append(clock() - start)
    return times
