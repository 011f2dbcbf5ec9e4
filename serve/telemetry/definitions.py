"""Every metric of Convoy, defined once. Recording happens per batch of requests, on pages that the meter reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from serve.telemetry.mmap_store import Values

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
QUEUE = Definition(
    "convoy_queue_rows",
    "gauge",
    "Rows that wait for an engine; of an ensemble or cascade those in its members' queues, where they count too.",
    ("model", "version"),
)
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


def _count(gauge: Values, step: int) -> None:
    """Counts engines: where a model's engine is replaced, the new one is there before the old one goes. None is absent, not 0."""
    count = np.nan_to_num(gauge[0]) + step
    gauge[0] = count if count > 0 else np.nan


Totals = dict[str, dict[tuple[tuple[str, str], ...], Values]]  # by metric and labels
