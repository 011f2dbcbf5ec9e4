"""Reports as frozen dataclasses, whose fields are also their JSON form. Times are in milliseconds unless named otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from loadtest.scrape import ServerSide
from loadtest.stats.intervals import Interval
from loadtest.stats.steadiness import Steadiness

QUANTILES: dict[str, float] = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}


@dataclass(frozen=True)
class Latency:
    """Latencies in milliseconds. A quantile is absent if fewer than five values lie beyond it."""

    count: int = 0
    mean: float | None = None
    maximum: float | None = None
    quantiles: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class GroupReport:
    """Results of a model, an arm, or all requests.

    `latency` is of successes, from the scheduled time; `good` counts those within the deadline.
    """

    name: str
    requests: int
    ok: int
    failed: int
    rows: int
    good: int
    latency: Latency
    labelled: int = 0
    accuracy: float | None = None
    accuracy_interval: Interval | None = None
    outcomes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Accounting:
    """Counts of all requests issued; each has exactly one of `outcomes`. `balanced` is True if the counts add up.

    `said` holds the first message of each kind of failure, from the server or the client.
    """

    issued: int
    warmup: int
    measured: int
    outcomes: Mapping[str, int]
    feedback: Mapping[str, int]
    said: Mapping[str, str] = field(default_factory=dict)

    @property
    def balanced(self) -> bool:
        """Whether every issued request has exactly one outcome."""
        return self.issued == sum(self.outcomes.values()) == self.warmup + self.measured


@dataclass(frozen=True)
class Generator:
    """The generator's own figures. `lag` is from the scheduled to the sent time; CPU is in cores.

    `starved_ms` is the mean time that a runnable worker waited for a core; `all_sent` is False if a worker was so late that
    it dropped requests that were due.
    """

    driver: str
    workers: int
    worker_cores: tuple[float, ...]
    starved_ms: float
    all_cores: float
    host_cores: int
    host_busy_cores: float
    host_stolen_cores: float
    lag: Latency
    waited_for_connection: int
    max_in_flight: int
    requests_per_cpu_s: float | None
    all_sent: bool = True


@dataclass(frozen=True)
class Verdict:
    """Whether a run measured the server: `valid` is False if the generator was the bottleneck."""

    valid: bool
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Window:
    """A window of the run; it begins `at_s` seconds after the start of the run, the warm-up included."""

    at_s: float
    warmup: bool
    offered_per_s: float
    answered_per_s: float
    good_per_s: float
    failed: int
    in_flight: int
    p50: float | None
    p99: float | None


@dataclass(frozen=True)
class Report:
    """One measured run."""

    name: str
    made: str
    plan: Mapping[str, Any]
    payloads: tuple[str, ...]
    seconds: float
    offered_per_s: float | None
    throughput_per_s: float
    throughput_interval: Interval | None
    rows_per_s: float
    deadline_ms: float | None
    goodput_per_s: float | None
    goodput_interval: Interval | None
    failed_share: float
    total: GroupReport
    latency_intervals: Mapping[str, Interval]
    all_latency: Latency  # failures counted as infinitely late
    service: Latency  # from the sent time, as closed-loop tools count
    send_ms: float
    receive_ms: float
    by_model: tuple[GroupReport, ...]
    by_arm: tuple[GroupReport, ...]
    accounting: Accounting
    generator: Generator
    steadiness: Steadiness
    verdict: Verdict
    answer_stages_ms: Mapping[str, float]
    server: ServerSide | None
    energy_per_image_j: float | None
    energy_parts_per_image_j: Mapping[str, float]
    windows: tuple[Window, ...]
    histogram: str
    stopped: bool = False

    @property
    def usable(self) -> bool:
        """Whether the numbers may be quoted: the run is valid, steady and balanced."""
        return self.verdict.valid and self.steadiness.steady is True and self.accounting.balanced

    @property
    def outside_server_ms(self) -> float | None:
        """Mean time between sending and answer that is outside the server's stages; None if it reports no stages."""
        scraped = self.server.stages_ms if self.server is not None else {}
        inside = (
            sum(scraped.values())
            if scraped
            else self.answer_stages_ms.get("total", sum(self.answer_stages_ms.values()))
        )
        return self.service.mean - inside if inside and self.service.mean is not None else None

    def quantile(self, name: str) -> float | None:
        """Latency in milliseconds at a quantile such as `p99`; None if it is not known."""
        return self.total.latency.quantiles.get(name)


def to_document(report: object) -> dict[str, Any]:
    """A report's JSON form."""
    document = asdict(report)  # type: ignore[call-overload]
    if isinstance(report, Report):
        document["usable"] = report.usable
        document["outside_server_ms"] = report.outside_server_ms
        document["accounting"]["balanced"] = report.accounting.balanced
    return dict(document)
