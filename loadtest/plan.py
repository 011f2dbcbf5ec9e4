"""The plan of a measurement: frozen values that are sent to worker processes. Seconds, but deadlines in milliseconds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args
from urllib.parse import urlsplit

from convoy.errors import ConfigError

Protocol = Literal[
    "classify", "classify-json", "classify-multipart", "oip", "oip-json", "oip-raw", "grpc", "grpc-classify", "raw"
]
PROTOCOLS: tuple[str, ...] = get_args(Protocol)
Process = Literal["constant", "poisson", "gamma"]
PayloadKind = Literal["folder", "synthetic", "tensor"]
LabelSource = Literal["none", "folder", "prefix", "csv"]
# With this seed Poisson counts are near their mean for every duration, so the offered rate is near the requested one.
SEED = 2


@dataclass(frozen=True)
class Target:
    """A server. `url` is http://, https:// or grpc:// with host and port; `metrics_url` is its Prometheus endpoint."""

    url: str
    protocol: Protocol = "classify"
    keep_alive: bool = True
    timeout_s: float = 30.0
    max_connections: int = 1024
    headers: tuple[tuple[str, str], ...] = ()
    metrics_url: str | None = None

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        schemes = ("grpc",) if self.is_grpc else ("http", "https")
        if parts.scheme not in schemes or not parts.hostname or parts.port is None:
            raise ConfigError(
                f"{self.url!r} is no {schemes[0]}://HOST:PORT address, which protocol {self.protocol} needs"
            )
        if parts.username or parts.password:
            raise ConfigError("an address with a name or password would appear in reports; send it with --header")
        if self.timeout_s <= 0 or self.max_connections < 1:
            raise ConfigError("timeout_s and max_connections must be positive")

    @property
    def is_grpc(self) -> bool:
        return self.protocol.startswith("grpc")

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0

    @property
    def is_local(self) -> bool:
        """Whether the server runs on this machine and so shares its cores with the load generator."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")


@dataclass(frozen=True)
class Payload:
    """Payloads: a folder of images, synthetic images of a size distribution, or random tensors.

    `side` and `side_spread` are the median long side in pixels and the sigma of its log-normal distribution.
    """

    kind: PayloadKind = "synthetic"
    folder: str = ""
    labels: LabelSource = "none"
    labels_csv: str = ""
    count: int = 64
    side: int = 224
    side_spread: float = 0.0
    channels: int = 3
    format: Literal["jpeg", "png"] = "jpeg"
    tensor: str = ""
    shape: tuple[int, ...] = ()
    datatype: str = "FP32"

    def __post_init__(self) -> None:
        if self.kind == "folder" and not self.folder:
            raise ConfigError("a payload of kind folder needs `folder`")
        if self.labels == "csv" and not self.labels_csv:
            raise ConfigError("labels: csv needs `labels_csv`, a file with the columns file,label")
        if self.count < 1 or self.side < 1 or self.channels not in (1, 3) or self.side_spread < 0:
            raise ConfigError("payload: count and side must be at least 1, channels 1 or 3, side_spread not negative")
        if any(size < 1 for size in self.shape):
            raise ConfigError(f"payload: shape {list(self.shape)} must be sizes of at least 1")


@dataclass(frozen=True)
class Traffic:
    """One kind of request in the mix; `weight` is its share of the arrivals, `batch` its images per request."""

    model: str
    weight: float = 1.0
    payload: Payload = field(default_factory=Payload)
    batch: int = 1
    path: str = ""
    priority: int | None = None
    deadline_ms: float | None = None
    upload_bytes_per_s: float | None = None
    output: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.weight < math.inf or self.batch < 1:
            raise ConfigError(f"traffic {self.label!r}: weight and batch must be positive")
        if self.upload_bytes_per_s is not None and not 1 <= self.upload_bytes_per_s < math.inf:
            raise ConfigError(f"traffic {self.label!r}: upload_bytes_per_s must be at least 1")

    @property
    def label(self) -> str:
        """Its name in reports."""
        return self.name or self.model


@dataclass(frozen=True)
class Step:
    """A step of an open-loop profile: `rate` requests/s for `seconds`."""

    rate: float
    seconds: float


@dataclass(frozen=True)
class Load:
    """Open loop (a process over a rate profile, or recorded times) or, with `concurrency`, closed loop.

    `burstiness` is the coefficient of variation of Gamma inter-arrival times; `recorded` holds seconds from the start.
    """

    process: Process = "poisson"
    steps: tuple[Step, ...] = ()
    burstiness: float = 3.0
    recorded: tuple[float, ...] = ()
    concurrency: int = 0
    think_s: float = 0.0

    def __post_init__(self) -> None:
        if sum((bool(self.steps), bool(self.recorded), self.concurrency > 0)) != 1:
            raise ConfigError("a load is one of: a rate (open loop), recorded arrivals, or a concurrency (closed loop)")
        if not all(0 <= step.rate < math.inf and 0 < step.seconds < math.inf for step in self.steps):
            raise ConfigError("rates must be numbers of at least 0, and steps longer than 0 s")
        if not self.burstiness > 0 or self.think_s < 0:
            raise ConfigError("burstiness must be positive, and think at least 0 s")

    @property
    def closed(self) -> bool:
        """Whether a fixed number of requests is in flight, instead of a given rate."""
        return self.concurrency > 0

    @property
    def seconds(self) -> float:
        """Duration of the profile; 0 where the plan decides."""
        if self.recorded:
            return self.recorded[-1]
        return sum(step.seconds for step in self.steps)

    def rate_at(self, second: float) -> float:
        """Offered requests/s of a stepped profile at a time; the last step never ends."""
        for step in self.steps:
            if second < step.seconds:
                return step.rate
            second -= step.seconds
        return self.steps[-1].rate if self.steps else 0.0


@dataclass(frozen=True)
class Feedback:
    """True labels that are sent to the server: for `share` of the checked answers, `delay_s` seconds after them."""

    path: str = "/v1/feedback"
    share: float = 1.0
    delay_s: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1 or not 0 <= self.delay_s < math.inf:
            raise ConfigError("feedback: share must be between 0 and 1 and delay_s not negative")


@dataclass(frozen=True)
class Plan:
    """A measurement. Requests of the warm-up are sent but not counted in the figures; `deadline_ms` defines goodput."""

    target: Target
    traffic: tuple[Traffic, ...]
    load: Load
    duration_s: float = 10.0
    warmup_s: float = 1.0
    seed: int = SEED
    workers: int = 1
    deadline_ms: float | None = None
    window_s: float | None = None
    feedback: Feedback | None = None
    name: str = "run"

    def __post_init__(self) -> None:
        if not self.traffic:
            raise ConfigError("a plan needs at least one kind of traffic (a model)")
        if not (0 < self.duration_s < math.inf and 0 <= self.warmup_s < math.inf):
            raise ConfigError("duration must be positive, the warm-up not negative, and both finite")
        if self.deadline_ms is not None and not self.deadline_ms > 0:
            raise ConfigError("deadline_ms must be positive")
        if self.feedback is not None and self.target.is_grpc:
            raise ConfigError("feedback is an HTTP request; use an http:// target for a plan with feedback")
        if self.seed < 0:
            raise ConfigError("seed must not be negative")
        if not 1 <= self.workers <= 64:
            raise ConfigError("workers must be between 1 and 64")

    @property
    def end_s(self) -> float:
        """Seconds from the start of the warm-up to the end of the measurement."""
        return self.warmup_s + self.duration_s

    @property
    def window(self) -> float:
        """Seconds per window of the figures: at least ten windows, at most 240."""
        return self.window_s or max(min(1.0, self.duration_s / 10), self.end_s / 240)
