"""Finds the engine, precision, threads and batch limit of the highest throughput within a latency target, by measuring."""

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

RUNS_AHEAD = 2  # a request waits for the run in progress and for its own run
FEWEST_RUNS = 20


@dataclass(frozen=True)
class Measured:
    """A measured configuration: images/s and the 99th percentile of seconds per run, over `runs` runs."""

    engine: str
    precision: str
    threads: int
    batch: int
    images_per_second: float
    p99_seconds: float
    runs: int

    @property
    def request_seconds(self) -> float:
        """Upper bound of the time that 99 % of requests wait for the engine, in seconds."""
        return RUNS_AHEAD * self.p99_seconds


@dataclass(frozen=True)
class Skipped:
    """An engine and precision that were not measured, and the reason."""

    engine: str
    precision: str
    reason: str


def choose(measured: Iterable[Measured], slo_seconds: float) -> Measured:
    """The configuration with the most images/s within the target. Raises ConfigError if there is none."""
    results = list(measured)
    fitting = [result for result in results if result.request_seconds <= slo_seconds]
    if fitting:
        return max(fitting, key=lambda result: result.images_per_second)
    fastest = min(results, key=lambda result: result.request_seconds)
    raise ConfigError(
        f"no engine answers within {slo_seconds * 1000:g} ms; the fastest, {fastest.engine} {fastest.precision}, needs "
        f"{fastest.request_seconds * 1000:.1f} ms for one image: raise --slo-p99, or serve a smaller network"
    )


def explore(
    model: ModelConfig,
    store: Store,
    cores: int,
    slo_seconds: float,
    seconds: float,
    report: Report = lambda step, done, total: None,
) -> tuple[list[Measured], list[Skipped]]:
    """Builds and measures every engine that passes the accuracy check, from one thread to all cores, `seconds` per batch size.

    Batch sizes grow until a run is too slow for the target. Raises ArtifactError.
    """
    artifact = Artifact.load(model.folder)
    source = find_eval_source(artifact)
    specs = [
        EngineSpec(artifact, backend, precision, source)
        for backend in installed_backends()
        for precision in backend.precisions()
    ]
    measured: list[Measured] = []
    skipped: list[Skipped] = []
    for number, spec in enumerate(specs):
        report("engines", number, len(specs))
        candidate = model.model_copy(update={"engine": spec.backend.name, "precision": spec.precision})
        if problem := _rejection(candidate, spec, store, report):
            skipped.append(Skipped(spec.backend.name, spec.precision, problem))
            continue
        for threads in thread_counts(cores):
            engine = select_engine(spec, store).load(threads, model.gpus)["image"]
            blank = Measured(spec.backend.name, spec.precision, threads, 0, 0.0, 0.0, 0)
            measured += measure(blank, engine, bucket_sizes(model.max_batch), slo_seconds, seconds)
    report("engines", len(specs), len(specs))
    return measured, skipped


def measure(
    blank: Measured,
    engine: Engine,
    sizes: Sequence[int],
    slo_seconds: float,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Measured]:
    """Measures batch sizes in ascending order, at least `seconds` and FEWEST_RUNS runs each, until one is too slow."""
    results: list[Measured] = []
    for size in sizes:
        warm_up(engine, (size,))
        times = _times(engine, size, seconds, clock)
        p99 = float(np.quantile(times, 0.99, method="higher"))
        speed = size / float(np.median(times))
        results.append(replace(blank, batch=size, images_per_second=speed, p99_seconds=p99, runs=len(times)))
        if results[-1].request_seconds > slo_seconds:
            break
    return results


def thread_counts(cores: int) -> list[int]:
    """Thread counts to measure: 1, 2, 4, … and all cores."""
    return list(bucket_sizes(cores))


def _rejection(candidate: ModelConfig, spec: EngineSpec, store: Store, report: Report) -> str:
    """The reason why an engine cannot be measured; empty if it is built and passed the accuracy check."""
    if serves_artifact(candidate):
        return ""
    try:
        entry = store.find(spec) or build_engine(spec, store, report)
    except ConvoyError as error:
        return str(error)
    return "" if entry.status == "accepted" else f"{entry.status}: {entry.manifest.judgement['reason']}"


def _times(engine: Engine, size: int, seconds: float, clock: Callable[[], float]) -> list[float]:
    rows = np.zeros((size, *engine.input.shape[1:]), engine.input.dtype)
    times: list[float] = []
    started = clock()
    while len(times) < FEWEST_RUNS or clock() - started < seconds:
        start = clock()
        engine.run(rows)
        times.append(clock() - start)
    return times
