"""Every metric of Convoy, defined once. A definition registers itself, so that no metric can be left out of the exposition.

Processes record into metrics files (`serve.telemetry.mmap_store`); the node agent reads the files at each scrape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from serve.telemetry.mmap_store import Values

Kind = Literal["counter", "gauge", "histogram"]
Totals = dict[str, dict[tuple[tuple[str, str], ...], Values]]  # by metric name and sorted labels

# Upper bounds of histogram buckets. Small networks answer in less than a millisecond, so the lowest buckets are fine.
SECONDS = (
    0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)

DEFINITIONS: dict[str, Definition] = {}  # by name; every Definition adds itself


@dataclass(frozen=True)
class Definition:
    """A metric: name, kind, help text, label names and, for a histogram, the upper bounds of its buckets.

    Define metrics in this module alone: the node agent exposes only what is defined in modules that it imports. Raises
    ValueError when the name is taken.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...]
    bounds: tuple[float, ...] = ()
    alike: bool = False  # a gauge that every process sets to the same fact: aggregated by maximum, not by sum

    def __post_init__(self) -> None:
        if self.name in DEFINITIONS:
            raise ValueError(f"metric {self.name} is defined twice")
        DEFINITIONS[self.name] = self

    @property
    def slots(self) -> int:
        """Numbers of a series in a metrics file; a histogram has its buckets, +Inf and the sum."""
        return len(self.bounds) + 2 if self.kind == "histogram" else 1


REQUESTS = Definition(
    "convoy_requests", "counter", "Requests by response code.", ("model", "version", "protocol", "code")
)
SAMPLES = Definition("convoy_samples", "counter", "Images or tensor rows in answered requests.", ("model", "version"))
BATCHES = Definition("convoy_batches", "counter", "Batches run by the engine.", ("model", "version"))
BUSY = Definition("convoy_busy_seconds", "counter", "Time in which the engine ran.", ("model", "version"))
HOST_CALLS = Definition("convoy_host_calls", "counter", "Batches received by model hosts.", ("model", "version"))
LOOP_BUSY = Definition("convoy_loop_busy_seconds", "counter", "CPU time of the event loops of gateways.", ())
DECODE_BUSY = Definition("convoy_decode_busy_seconds", "counter", "Time in which decode threads decoded images.", ())
SIZE_RUNS = Definition("convoy_batch_runs", "counter", "Batches run, by batch size.", ("model", "version", "size"))
SIZE_SECONDS = Definition(
    "convoy_batch_run_seconds", "counter", "Time in which batches ran, by batch size.", ("model", "version", "size")
)
FAILED_SECONDS = Definition(
    "convoy_failed_seconds", "counter", "Duration of requests that failed.", ("model", "version")
)
LAST_RUN = Definition(
    "convoy_last_run_timestamp_seconds",
    "gauge",
    "Unix time at which the last batch ended.",
    ("model", "version"),
    alike=True,
)
CACHE_HITS = Definition(
    "convoy_cache_hits", "counter", "Requests answered from the response cache.", ("model", "version")
)
CACHE_MISSES = Definition(
    "convoy_cache_misses", "counter", "Requests that were not in the response cache.", ("model", "version")
)
CACHE_SECONDS = Definition(
    "convoy_cache_hit_seconds",
    "counter",
    "Duration of requests answered from the response cache.",
    ("model", "version"),
)
WORK = Definition(
    "convoy_work_seconds",
    "counter",
    "Time in which the engine ran, times the cores (or accelerators) that it may use.",
    ("model", "version", "device"),
)
ENGINE_SHARE = Definition(
    "convoy_engine_share_seconds",
    "counter",
    "Engine time of answered requests: each request's share of its batches, by rows.",
    ("model", "version", "experiment", "arm"),
)
SHED = Definition(
    "convoy_shed", "counter", "Requests refused because of load or a quota, by reason.", ("model", "version", "reason")
)
CANCELLED = Definition(
    "convoy_cancelled",
    "counter",
    "Requests that the client cancelled, or whose client disconnected.",
    ("model", "version"),
)
BATCH_ROWS = Definition("convoy_batch_size", "histogram", "Rows per batch.", ("model", "version"), ROWS)
STAGE = Definition(
    "convoy_stage_seconds",
    "histogram",
    "Duration of answered requests by stage: receive, decode, queue, run, post, send.",
    ("model", "version", "stage"),
    SECONDS,
)
TOTAL = Definition(
    "convoy_request_seconds",
    "histogram",
    "Duration of answered requests, from the first byte received to the last byte sent.",
    ("model", "version"),
    SECONDS,
)
MEMBER = Definition(
    "convoy_member_requests",
    "counter",
    "Requests to members of an ensemble or cascade, by outcome: answered, late, failed.",
    ("model", "version", "member", "outcome"),
)
MEMBER_TIME = Definition(
    "convoy_member_seconds",
    "histogram",
    "Time until a member of an ensemble or cascade answered, failed or missed its deadline.",
    ("model", "version", "member"),
    SECONDS,
)
MEMBER_ENGINE = Definition(
    "convoy_member_engine_seconds",
    "counter",
    "Engine time that a member spent for an ensemble or cascade: its share of each batch, by rows.",
    ("model", "version", "member"),
)
STAGE_IMAGES = Definition(
    "convoy_cascade_stage_images",
    "counter",
    "Images that reached a stage of a cascade.",
    ("model", "version", "stage"),
)
QUEUE = Definition(
    "convoy_queue_rows",
    "gauge",
    "Rows that wait for an engine; of an ensemble or cascade those in its members' queues, where they count too.",
    ("model", "version"),
)
IN_FLIGHT = Definition("convoy_requests_in_flight", "gauge", "Requests in progress.", ("protocol",))
TARGET = Definition(
    "convoy_target_seconds", "gauge", "Target for the duration of one batch.", ("model", "version"), alike=True
)
ENGINES = Definition(
    "convoy_engine_replicas", "gauge", "Processes in which the model's engine is loaded.", ("model", "version")
)
ENGINE_INFO = Definition(
    "convoy_engine_info",
    "gauge",
    "Processes in which a model runs, by engine and precision; status is the result of the accuracy check.",
    ("model", "version", "engine", "precision", "status"),
)
CURVE = Definition(
    "convoy_batch_curve_seconds",
    "gauge",
    "Duration of a batch of this size at warm-up. Batch limits follow from this latency curve.",
    ("model", "version", "size"),
    alike=True,
)
UNAVAILABLE = Definition(
    "convoy_model_unavailable",
    "gauge",
    "Gateways in which a configured model, ensemble or cascade could not be loaded, or its engine has failed.",
    ("model", "version"),
)
LOADS = Definition("convoy_model_loads", "counter", "Engine loads under the memory budget.", ("model", "version"))
LOAD_SECONDS = Definition(
    "convoy_model_load_seconds", "counter", "Duration of engine loads under the memory budget.", ("model", "version")
)
EVICTIONS = Definition(
    "convoy_model_evictions", "counter", "Engines unloaded to free memory for other engines.", ("model", "version")
)
ENERGY = Definition(
    "convoy_energy_joules",
    "counter",
    "Energy by use (part: model, idle, other). The parts of a chip add up to its energy counter.",
    ("part", "model", "version", "experiment", "arm", "chip", "source", "method"),
)
CHIP_ENERGY = Definition(
    "convoy_chip_energy_joules",
    "counter",
    "Energy used by a chip, by its energy counter.",
    ("chip", "source", "method"),
)
POWER = Definition(
    "convoy_power_watts", "gauge", "Mean power of a chip over the last second.", ("chip", "source", "method")
)
IDLE_POWER = Definition(
    "convoy_idle_power_watts", "gauge", "Idle power of a chip, measured or declared.", ("chip", "source", "method")
)
POWER_CAP = Definition("convoy_power_cap_watts", "gauge", "Power limit of a chip.", ("chip", "source", "method"))
CPU_BUSY = Definition(
    "convoy_node_busy_core_seconds", "counter", "Core-seconds in which any process ran on this node.", ()
)
CORES = Definition("convoy_node_cores", "gauge", "CPU cores of this node.", ())
ARM_REQUESTS = Definition(
    "convoy_experiment_requests",
    "counter",
    "Requests and request copies by experiment arm and outcome: answered, failed.",
    ("experiment", "revision", "arm", "outcome"),
)
ARM_COPIES = Definition(
    "convoy_experiment_copies",
    "counter",
    "Copies of requests sent to other arms, by outcome: run, dropped under load.",
    ("experiment", "revision", "arm", "outcome"),
)
SPLIT = Definition(
    "convoy_experiment_split_p_value",
    "gauge",
    "Always-valid p-value of the sample ratio mismatch test: units were split as configured.",
    ("experiment", "revision"),
    alike=True,
)
LEDGER_EVENTS = Definition(
    "convoy_ledger_events",
    "counter",
    "Events for the ledger, by outcome: written, or dropped because the ledger was unavailable too long.",
    ("outcome",),
)
BUILD = Definition("convoy_build_info", "gauge", "Version of Convoy; the value is 1.", ("version", "ray"))
