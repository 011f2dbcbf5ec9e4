"""Writes metrics into the process's shared-memory page."""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np

from serve.telemetry.definitions import (
    BATCH_ROWS,
    BATCHES,
    BUSY,
    CACHE_HITS,
    CACHE_MISSES,
    CACHE_SECONDS,
    CANCELLED,
    CURVE,
    ENGINE_INFO,
    ENGINE_SHARE,
    ENGINES,
    FAILED_SECONDS,
    LAST_RUN,
    QUEUE,
    REQUESTS,
    ROWS,
    SAMPLES,
    SECONDS,
    SHED,
    SIZE_RUNS,
    SIZE_SECONDS,
    STAGE,
    TOTAL,
    WORK,
    Definition,
)
from serve.telemetry.mmap_store import MmapWriter, Values
from serve.telemetry.request_timings import STAGES


class Metrics:
    """The metrics of this process."""

    def __init__(self, page: MmapWriter) -> None:
        self._page = page

    @property
    def folder(self) -> Path:
        """The node's folder of pages."""
        return self._page.folder

    def values(self, definition: Definition, **labels: str) -> Values:
        """The series' values: one number, or a histogram's bucket counts followed by its sum."""
        if set(labels) != set(definition.labels):
            raise ValueError(f"{definition.name} has the labels {definition.labels}, not {tuple(labels)}")
        return self._page.series(definition.name, labels, definition.slots)

    def increment(self, definition: Definition, **labels: str) -> None:
        self.values(definition, **labels)[0] += 1

    def set(self, definition: Definition, value: float, **labels: str) -> None:
        """Sets a gauge; NaN makes it absent."""
        self.values(definition, **labels)[0] = value


class EngineTime:
    """Counters of the time one engine ran; `units` is the cores (or accelerators) that it may use."""

    def __init__(self, metrics: Metrics, model: str, version: str, units: int, device: str = "cpu") -> None:
        self._busy = metrics.values(BUSY, model=model, version=version)
        self._work = metrics.values(WORK, model=model, version=version, device=device)
        self._units = units
        self._loaded = metrics.values(ENGINES, model=model, version=version)
        self._info = partial(metrics.values, ENGINE_INFO, model=model, version=version)
        self._curve = partial(metrics.values, CURVE, model=model, version=version)
        self._runs: Values | None = None

    def add(self, seconds: float) -> None:
        self._busy[0] += seconds
        self._work[0] += seconds * self._units

    def runs(self, engine: str, precision: str, status: str) -> None:
        """What the engine is from now on."""
        self._forget()
        self._runs = self._info(engine=engine, precision=precision, status=status)
        for values in (self._runs, self._loaded):
            _count(values, 1)

    def measured(self, sizes: Iterable[int], seconds: Iterable[float]) -> None:
        """The latency curve of what runs."""
        for size, time_of_batch in zip(sizes, seconds, strict=True):
            self._curve(size=str(size))[0] = time_of_batch

    def close(self) -> None:
        """The engine is unloaded."""
        self._forget()

    def _forget(self) -> None:
        if self._runs is not None:
            for values in (self._runs, self._loaded):
                _count(values, -1)
        self._runs = None


def _count(gauge: Values, step: int) -> None:
    # A model's new engine is counted before the old one is not: while one is replaced, the gauge may read 2. No engine is
    # NaN (absent), not 0, so that processes that never held the model add no series.
    count = np.nan_to_num(gauge[0]) + step
    gauge[0] = count if count > 0 else np.nan


def observe(histogram: Values, bounds: Values, observations: Values) -> None:
    """Adds observations to a histogram's values (buckets, then +Inf, then the sum)."""
    histogram[:-1] += np.bincount(np.searchsorted(bounds, observations), minlength=len(bounds) + 1)
    histogram[-1] += observations.sum()


class ModelRecorder:
    """Records one model's requests and batches; requests are kept as rows and counted together."""

    FLUSH_ROWS = 1024

    def __init__(self, metrics: Metrics, model: str, version: str, engine: str = "") -> None:
        """`model` is the name that clients call, `engine` the model whose engine answers (empty: the same)."""
        self._metrics = metrics
        self.engine = engine or model
        self._labels = {"model": model, "version": version}
        self._rows: list[tuple[float, ...]] = []
        self._bounds = np.array(SECONDS)
        self._stages = [metrics.values(STAGE, stage=stage, **self._labels) for stage in STAGES]
        self._total = metrics.values(TOTAL, **self._labels)
        self._batch_rows = metrics.values(BATCH_ROWS, **self._labels)
        self._row_bounds = np.array(ROWS)
        self._samples = metrics.values(SAMPLES, **self._labels)
        self._batches = metrics.values(BATCHES, **self._labels)
        self._queue = metrics.values(QUEUE, **self._labels)
        self._codes: dict[tuple[str, str], Values] = {}
        self._sizes: dict[int, tuple[Values, Values]] = {}
        self._shed: dict[str, Values] = {}
        self._failed_seconds = metrics.values(FAILED_SECONDS, **self._labels)
        self._last_run = metrics.values(LAST_RUN, **self._labels)
        self._shares: dict[tuple[str, str], Values] = {}

    def request(self, stages: tuple[float, ...]) -> None:
        """An answered request: seconds of each of STAGES, in their order."""
        self._rows.append(stages)
        if len(self._rows) >= self.FLUSH_ROWS:
            self.flush()

    def code(self, protocol: str, code: str) -> None:
        key = (protocol, code)
        if key not in self._codes:
            self._codes[key] = self._metrics.values(REQUESTS, protocol=protocol, code=code, **self._labels)
        self._codes[key][0] += 1

    def cache_hit(self, seconds: float) -> None:
        """A request that the cache answered in `seconds`; it has no stages."""
        observe(self._total, self._bounds, np.array([seconds]))
        self._metrics.increment(CACHE_HITS, **self._labels)
        self._metrics.values(CACHE_SECONDS, **self._labels)[0] += seconds

    def cache_miss(self) -> None:
        self._metrics.increment(CACHE_MISSES, **self._labels)

    def failed(self, seconds: float) -> None:
        """A request that ended in an error after `seconds`."""
        self._failed_seconds[0] += seconds

    def batch(self, size: int, seconds: float) -> None:
        """A batch of `size` rows that ran for `seconds`."""
        self._batches[0] += 1
        runs, time_of_runs = self._sizes.get(size) or self._size(size)
        runs[0] += 1
        time_of_runs[0] += seconds
        self._last_run[0] = time.time()
        self._samples[0] += size
        self._batch_rows[self._row_bounds.searchsorted(size)] += 1
        self._batch_rows[-1] += size

    def _size(self, size: int) -> tuple[Values, Values]:
        labels = self._labels | {"size": str(size)}
        self._sizes[size] = (self._metrics.values(SIZE_RUNS, **labels), self._metrics.values(SIZE_SECONDS, **labels))
        return self._sizes[size]

    def engine_share(self, seconds: float, experiment: str = "", arm: str = "") -> None:
        """Engine time of a request: of each of its batches the part of its rows."""
        key = (experiment, arm)
        if key not in self._shares:
            labels = {"model": self.engine, "version": self._labels["version"], "experiment": experiment, "arm": arm}
            self._shares[key] = self._metrics.values(ENGINE_SHARE, **labels)
        self._shares[key][0] += seconds

    @property
    def folder(self) -> Path:
        """The folder of this node's metrics."""
        return self._metrics.folder

    def shed(self, reason: str) -> None:
        if reason not in self._shed:
            self._shed[reason] = self._metrics.values(SHED, reason=reason, **self._labels)
        self._shed[reason][0] += 1

    def cancelled(self) -> None:
        self._metrics.increment(CANCELLED, **self._labels)

    def queue(self, rows: int) -> None:
        self._queue[0] = rows

    def flush(self) -> None:
        """Brings the kept rows into the page."""
        if not self._rows:
            return
        table = np.array(self._rows)
        self._rows.clear()
        for values, column in zip(self._stages, table.T, strict=True):
            observe(values, self._bounds, column)
        observe(self._total, self._bounds, table.sum(axis=1))
