"""Every metric of Convoy, defined once. Recording happens per batch of requests, on pages that the meter reads."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from serve.metric_pages import Labels, PageWriter, Series, Values
from serve.power.prices import Price, read_prices
from serve.timeline import STAGES

Kind = Literal["counter", "gauge", "histogram"]

SECONDS = (
    0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)


@dataclass(frozen=True)
class Definition:
    """A metric: its name, kind, help and, for histograms, upper bounds of its buckets."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...]
    bounds: tuple[float, ...] = ()
    alike: bool = False  # a gauge that every process sets alike: the largest counts, not the sum

    @property
    def slots(self) -> int:
        return len(self.bounds) + 2 if self.kind == "histogram" else 1  # buckets, +Inf, sum


REQUESTS = Definition(
    "convoy_requests", "counter", "Requests by answer code.", ("model", "version", "protocol", "code")
)
SAMPLES = Definition("convoy_samples", "counter", "Images or tensor rows answered.", ("model", "version"))
BATCHES = Definition("convoy_batches", "counter", "Batches run.", ("model", "version"))
BUSY = Definition("convoy_busy_seconds", "counter", "Time an engine was running.", ("model", "version"))
HOST_CALLS = Definition("convoy_host_calls", "counter", "Batches that arrived at hosts.", ("model", "version"))
LOOP_BUSY = Definition("convoy_loop_busy_seconds", "counter", "CPU time of the gateways' event loops.", ())
DECODE_BUSY = Definition("convoy_decode_busy_seconds", "counter", "Time that decode threads were decoding.", ())
SIZE_RUNS = Definition("convoy_batch_runs", "counter", "Batches run, by size.", ("model", "version", "size"))
SIZE_SECONDS = Definition(
    "convoy_batch_run_seconds", "counter", "Time that batches ran, by size.", ("model", "version", "size")
)
FAILED_SECONDS = Definition(
    "convoy_failed_seconds", "counter", "Time of requests that ended in an error.", ("model", "version")
)
LAST_RUN = Definition(
    "convoy_last_run_timestamp_seconds", "gauge", "When the last batch ended.", ("model", "version"), alike=True
)
CACHE_HITS = Definition(
    "convoy_cache_hits", "counter", "Requests answered from the response cache.", ("model", "version")
)
CACHE_MISSES = Definition(
    "convoy_cache_misses", "counter", "Requests that the response cache could not answer.", ("model", "version")
)
CACHE_SECONDS = Definition(
    "convoy_cache_hit_seconds", "counter", "Time of requests answered from the response cache.", ("model", "version")
)
WORK = Definition(
    "convoy_work_seconds",
    "counter",
    "Time an engine was running, times the cores (or accelerators) it may use.",
    ("model", "version", "device"),
)
ENGINE_SHARE = Definition(
    "convoy_engine_share_seconds",
    "counter",
    "Engine time of answered requests: of each batch the part of their rows.",
    ("model", "version", "experiment", "arm"),
)
SHED = Definition("convoy_shed", "counter", "Requests refused under load.", ("model", "version", "reason"))
CANCELLED = Definition(
    "convoy_cancelled", "counter", "Requests whose client left before the answer.", ("model", "version")
)
BATCH_ROWS = Definition("convoy_batch_size", "histogram", "Rows per batch.", ("model", "version"), ROWS)
STAGE = Definition(
    "convoy_stage_seconds", "histogram", "Time of answered requests by stage.", ("model", "version", "stage"), SECONDS
)
TOTAL = Definition(
    "convoy_request_seconds",
    "histogram",
    "Time of answered requests, first byte to last.",
    ("model", "version"),
    SECONDS,
)
MEMBER = Definition(
    "convoy_member_requests",
    "counter",
    "Questions to the members of an ensemble or cascade by outcome: answered, late, failed.",
    ("model", "version", "member", "outcome"),
)
MEMBER_TIME = Definition(
    "convoy_member_seconds",
    "histogram",
    "Time until a member of an ensemble or cascade answered, failed or was given up.",
    ("model", "version", "member"),
    SECONDS,
)
MEMBER_ENGINE = Definition(
    "convoy_member_engine_seconds",
    "counter",
    "Engine time of a member that an ensemble or cascade accounts for, by its rows' share of each batch.",
    ("model", "version", "member"),
)
STAGE_IMAGES = Definition(
    "convoy_cascade_stage_images",
    "counter",
    "Images that a stage of a cascade was asked for.",
    ("model", "version", "stage"),
)
QUEUE = Definition("convoy_queue_rows", "gauge", "Rows that wait for an engine.", ("model", "version"))
IN_FLIGHT = Definition("convoy_requests_in_flight", "gauge", "Requests being answered.", ("protocol",))
TARGET = Definition(
    "convoy_target_seconds", "gauge", "Longest run of one batch that is wanted.", ("model", "version"), alike=True
)
ENGINES = Definition("convoy_engine_replicas", "gauge", "Processes that hold a model's engine.", ("model", "version"))
ENGINE_INFO = Definition(
    "convoy_engine_info",
    "gauge",
    "Processes in which a model runs in an engine, by what that is; status is the gate's.",
    ("model", "version", "engine", "precision", "status"),
)
CURVE = Definition(
    "convoy_batch_curve_seconds",
    "gauge",
    "Time of a batch of this size at warm-up: the latency curve that limits of batches follow from.",
    ("model", "version", "size"),
    alike=True,
)
UNAVAILABLE = Definition(
    "convoy_model_unavailable",
    "gauge",
    "Gateways in which a model, ensemble or cascade that is wanted could not be brought into service, or a model's engine broke.",
    ("model", "version"),
)
LOADS = Definition(
    "convoy_model_loads", "counter", "Loads of an engine within the memory budget.", ("model", "version")
)
LOAD_SECONDS = Definition("convoy_model_load_seconds", "counter", "Time that these loads took.", ("model", "version"))
EVICTIONS = Definition(
    "convoy_model_evictions", "counter", "Engines freed because others needed the memory.", ("model", "version")
)
ENERGY = Definition(
    "convoy_energy_joules",
    "counter",
    "Energy by what it was used for (part: model, idle, other); the parts of a chip add up to its counter.",
    ("part", "model", "version", "experiment", "arm", "chip", "source", "method"),
)
CHIP_ENERGY = Definition(
    "convoy_chip_energy_joules", "counter", "Energy counter of a chip.", ("chip", "source", "method")
)
POWER = Definition("convoy_power_watts", "gauge", "Power of a chip over the last second.", ("chip", "source", "method"))
IDLE_POWER = Definition(
    "convoy_idle_power_watts", "gauge", "Power of a chip at rest, learnt or declared.", ("chip", "source", "method")
)
POWER_CAP = Definition(
    "convoy_power_cap_watts", "gauge", "The most that a chip may draw.", ("chip", "source", "method")
)
CPU_BUSY = Definition(
    "convoy_node_busy_core_seconds", "counter", "Core-seconds in which anything ran on this node.", ()
)
CORES = Definition("convoy_node_cores", "gauge", "Cores of this node.", ())
ARM_REQUESTS = Definition(
    "convoy_experiment_requests",
    "counter",
    "Requests and copies by the arm that took them, answered or failed.",
    ("experiment", "revision", "arm", "outcome"),
)
ARM_COPIES = Definition(
    "convoy_experiment_copies",
    "counter",
    "Copies of requests for other arms, run or dropped under load.",
    ("experiment", "revision", "arm", "outcome"),
)
SPLIT = Definition(
    "convoy_experiment_split_p_value",
    "gauge",
    "Always-valid p-value that units were split as promised (sample-ratio mismatch).",
    ("experiment", "revision"),
    alike=True,
)
LEDGER_EVENTS = Definition(
    "convoy_ledger_events",
    "counter",
    "Events for the ledger: written, or dropped because it was away too long.",
    ("outcome",),
)
BUILD = Definition("convoy_build_info", "gauge", "Version of Convoy; the value is 1.", ("version", "ray"))

ALL = (
    REQUESTS, SAMPLES, BATCHES, BUSY, HOST_CALLS, LOOP_BUSY, DECODE_BUSY, SIZE_RUNS, SIZE_SECONDS, FAILED_SECONDS, LAST_RUN,
    CACHE_HITS, CACHE_MISSES, CACHE_SECONDS, WORK, ENGINE_SHARE, SHED, CANCELLED, BATCH_ROWS, STAGE, TOTAL, QUEUE, IN_FLIGHT,
    TARGET, ENGINES, ENERGY, CHIP_ENERGY, POWER, IDLE_POWER, POWER_CAP, CPU_BUSY, CORES, BUILD,
    MEMBER, MEMBER_TIME, MEMBER_ENGINE, STAGE_IMAGES, ARM_REQUESTS, ARM_COPIES, SPLIT, LEDGER_EVENTS,
    UNAVAILABLE, LOADS, LOAD_SECONDS, EVICTIONS, ENGINE_INFO, CURVE,
)  # fmt: skip
DEFINITIONS = {definition.name: definition for definition in ALL}


class Metrics:
    """The metrics of this process."""

    def __init__(self, page: PageWriter) -> None:
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
    """Counts engines: where a model's engine is replaced, the new one is there before the old one goes. None is absent, not 0."""
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

    def price(self) -> Price | None:
        """What the meter last found that engine time of this model costs; None without a source of power figures."""
        return read_prices(self._metrics.folder).models.get(self.engine)

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


Totals = dict[str, dict[tuple[tuple[str, str], ...], Values]]  # by metric and labels


def total(series: Iterable[Series]) -> Totals:
    """All processes' series together: counters and histograms summed, gauges of the living summed too."""
    totals: Totals = defaultdict(dict)
    for one in series:
        definition = DEFINITIONS.get(one.metric)
        if definition is None or (definition.kind == "gauge" and not (one.alive and np.isfinite(one.values[0]))):
            continue
        of_metric = totals[one.metric]
        if one.labels not in of_metric:
            of_metric[one.labels] = one.values
        elif definition.alike:
            of_metric[one.labels] = np.maximum(of_metric[one.labels], one.values)
        else:
            of_metric[one.labels] = of_metric[one.labels] + one.values
    return totals


def collect(series: Iterable[Series]) -> Iterator[Metric]:
    """Prometheus families of all processes' series."""
    for name, of_metric in sorted(total(series).items()):
        yield _family(DEFINITIONS[name], of_metric)


def _family(definition: Definition, rows: dict[tuple[tuple[str, str], ...], Values]) -> Metric:
    if definition.kind == "histogram":
        histogram = HistogramMetricFamily(definition.name, definition.help, labels=definition.labels)
        for key, values in rows.items():
            running = np.cumsum(values[:-1])
            bounds = [*(repr(bound) for bound in definition.bounds), "+Inf"]
            buckets = [(bound, float(count)) for bound, count in zip(bounds, running, strict=True)]
            histogram.add_metric(_ordered(definition, dict(key)), buckets, float(values[-1]))
        return histogram
    kind = CounterMetricFamily if definition.kind == "counter" else GaugeMetricFamily
    family = kind(definition.name, definition.help, labels=definition.labels)
    for key, values in rows.items():
        family.add_metric(_ordered(definition, dict(key)), float(values[0]))
    return family


def _ordered(definition: Definition, labels: Labels) -> list[str]:
    return [labels[name] for name in definition.labels]
