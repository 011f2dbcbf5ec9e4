"""A report: plain frozen values, so that the JSON form is the report itself. Milliseconds unless a name says otherwise."""

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
    """Quantiles by name; one is absent where fewer than five values lie beyond it."""

    count: int = 0
    mean: float | None = None
    maximum: float | None = None
    quantiles: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class GroupReport:
    """A model, an arm, or everything. `latency` is of successes, from the scheduled time."""

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
    """Every request issued is in exactly one of `outcomes`; `balanced` says that the sum is right.

    `said` holds the first words of each kind of failure, as the server (or the client) put it.
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
    """How the generator fared. Lag is from the scheduled to the sent time; CPU in cores.

    `starved_ms` is the mean time a worker waited for a core whenever it had something to do; `all_sent` is False when it
    was so late that it gave up on requests that were due.
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
    """Whether the numbers are the server's: `valid` is False when the generator was the bottleneck."""

    valid: bool
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Window:
    """A window of the run; `at_s` is the time of its beginning from the start of the run, the warm-up included."""

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
        """Valid, steady and balanced: a number that may be quoted."""
        return self.verdict.valid and self.steadiness.steady is True and self.accounting.balanced

    @property
    def outside_server_ms(self) -> float | None:
        """Mean time from sending to the answer that the server's own clock did not see; None where it tells no times."""
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
