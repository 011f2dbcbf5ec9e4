"""Records metrics into this process's metrics file."""

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

    def __init__(self, file: MmapWriter) -> None:
        self._file = file

    @property
    def folder(self) -> Path:
        """The folder of the node's metrics files."""
        return self._file.folder

    def values(self, definition: Definition, **labels: str) -> Values:
        """A writable view of a series: one value, or a histogram's bucket counts followed by its sum.

        Raises ValueError when the labels are not those of the definition.
        """
        if set(labels) != set(definition.labels):
            raise ValueError(f"{definition.name} has the labels {definition.labels}, not {tuple(labels)}")
        return self._file.series(definition.name, labels, definition.slots)

    def increment(self, definition: Definition, **labels: str) -> None:
        """Adds one to a counter."""
        self.values(definition, **labels)[0] += 1

    def set(self, definition: Definition, value: float, **labels: str) -> None:
        """Sets a gauge; NaN makes the series absent."""
        self.values(definition, **labels)[0] = value


class EngineTime:
    """Metrics of an engine: its busy time, its facts, its latency curve.

    `units` is the number of cores (or accelerators) that the engine may use.
    """

    def __init__(self, metrics: Metrics, model: str, version: str, units: int, device: str = "cpu") -> None:
        self._busy = metrics.values(BUSY, model=model, version=version)
        self._work = metrics.values(WORK, model=model, version=version, device=device)
        self._units = units
        self._loaded = metrics.values(ENGINES, model=model, version=version)
        self._info = partial(metrics.values, ENGINE_INFO, model=model, version=version)
        self._curve = partial(metrics.values, CURVE, model=model, version=version)
        self._runs: Values | None = None

    def add(self, seconds: float) -> None:
        """Records that the engine ran for `seconds`."""
        self._busy[0] += seconds
        self._work[0] += seconds * self._units

    def runs(self, engine: str, precision: str, status: str) -> None:
        """Records the engine that runs from now on. `status`: the result of its accuracy check."""
        self._forget()
        self._runs = self._info(engine=engine, precision=precision, status=status)
        for values in (self._runs, self._loaded):
            _count(values, 1)

    def measured(self, sizes: Iterable[int], seconds: Iterable[float]) -> None:
        """Records the latency curve of the engine: seconds of a batch by batch size."""
        for size, duration in zip(sizes, seconds, strict=True):
            self._curve(size=str(size))[0] = duration

    def close(self) -> None:
        """Removes the series of an unloaded engine."""
        self._forget()

    def _forget(self) -> None:
        if self._runs is not None:
            for values in (self._runs, self._loaded):
                _count(values, -1)
        self._runs = None


def _count(gauge: Values, step: int) -> None:
    # A replacement engine is counted before the old one is closed, so the gauge may read 2 for a moment. After the last engine
    # the series is absent (NaN), not 0: an unloaded model has no series.
    count = np.nan_to_num(gauge[0]) + step
    gauge[0] = count if count > 0 else np.nan


def observe(histogram: Values, bounds: Values, observations: Values) -> None:
    """Adds observations (shape: any length) to a histogram's values (buckets, then +Inf, then the sum), in place.

    A bucket counts observations up to and including its bound, as in Prometheus.
    """
    histogram[:-1] += np.bincount(np.searchsorted(bounds, observations), minlength=len(bounds) + 1)
    histogram[-1] += observations.sum()


class ModelRecorder:
    """Records the requests and batches of one model.

    Requests are buffered and put into the histograms together, because NumPy takes as long for one as for hundreds.
    """

    FLUSH_ROWS = 1024

    def __init__(self, metrics: Metrics, model: str, version: str, engine: str = "") -> None:
        """`model` is the name that clients call, `engine` the model that owns the engine (empty: the same model)."""
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
        """Records an answered request: seconds per stage, in the order of STAGES."""
        self._rows.append(stages)
        if len(self._rows) >= self.FLUSH_ROWS:
            self.flush()

    def code(self, protocol: str, code: str) -> None:
        """Counts a request by its HTTP status or gRPC code."""
        key = (protocol, code)
        if key not in self._codes:
            self._codes[key] = self._metrics.values(REQUESTS, protocol=protocol, code=code, **self._labels)
        self._codes[key][0] += 1

    def cache_hit(self, seconds: float) -> None:
        """Records a request that the response cache answered in `seconds`. It has no stages."""
        observe(self._total, self._bounds, np.array([seconds]))
        self._metrics.increment(CACHE_HITS, **self._labels)
        self._metrics.values(CACHE_SECONDS, **self._labels)[0] += seconds

    def cache_miss(self) -> None:
        """Counts a request that was not in the response cache."""
        self._metrics.increment(CACHE_MISSES, **self._labels)

    def failed(self, seconds: float) -> None:
        """Records a request that failed after `seconds`."""
        self._failed_seconds[0] += seconds

    def batch(self, size: int, seconds: float) -> None:
        """Records a batch of `size` rows that ran for `seconds`."""
        self._batches[0] += 1
        runs, run_seconds = self._sizes.get(size) or self._size(size)
        runs[0] += 1
        run_seconds[0] += seconds
        self._last_run[0] = time.time()
        self._samples[0] += size
        self._batch_rows[self._row_bounds.searchsorted(size)] += 1
        self._batch_rows[-1] += size

    def _size(self, size: int) -> tuple[Values, Values]:
        labels = self._labels | {"size": str(size)}
        self._sizes[size] = (self._metrics.values(SIZE_RUNS, **labels), self._metrics.values(SIZE_SECONDS, **labels))
        return self._sizes[size]

    def engine_share(self, seconds: float, experiment: str = "", arm: str = "") -> None:
        """Records the engine time of a request: its share of its batches, by rows."""
        key = (experiment, arm)
        if key not in self._shares:
            labels = {"model": self.engine, "version": self._labels["version"], "experiment": experiment, "arm": arm}
            self._shares[key] = self._metrics.values(ENGINE_SHARE, **labels)
        self._shares[key][0] += seconds

    @property
    def folder(self) -> Path:
        """The folder of the node's metrics files."""
        return self._metrics.folder

    def shed(self, reason: str) -> None:
        """Counts a refused request."""
        if reason not in self._shed:
            self._shed[reason] = self._metrics.values(SHED, reason=reason, **self._labels)
        self._shed[reason][0] += 1

    def cancelled(self) -> None:
        """Counts a request that the client cancelled."""
        self._metrics.increment(CANCELLED, **self._labels)

    def queue(self, rows: int) -> None:
        """Sets the number of rows that wait for the engine."""
        self._queue[0] = rows

    def flush(self) -> None:
        """Moves the buffered requests into the metrics file."""
        if not self._rows:
            return
        durations = np.array(self._rows)  # requests x stages
        self._rows.clear()
        for values, stage_durations in zip(self._stages, durations.T, strict=True):
            observe(values, self._bounds, stage_durations)
        observe(self._total, self._bounds, durations.sum(axis=1))
