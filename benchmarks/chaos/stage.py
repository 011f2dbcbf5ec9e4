"""Where faults happen: a server of this process, its processes by their role, and a load that is watched while it runs."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from benchmarks.chaos.postgres import Postgres, postgres
from benchmarks.chaos.waiting import PATIENCE_SECONDS, until
from benchmarks.server import Server, free_ports
from loadtest.coordinator import Run, run_plan
from loadtest.plan import Load, Payload, Plan, Step, Target, Traffic
from serve.config.loading import parse_settings
from serve.config.schema import Settings
from serve.deployments import local

HOSTED, LOCAL = "resnet20-cifar10", "lenet5-mnist"
RATE = 200.0
WARMUP_SECONDS = 3.0
BEFORE_SECONDS = 5.0  # of undisturbed load, which the time after is compared with
TIMEOUT_SECONDS = 40.0
WINDOW_SECONDS = 0.25
DIGIT, PICTURE = Payload(side=28, channels=1, format="png"), Payload(side=32, format="png")
WHOLE = {"ServeController": 1, "ServeReplica:gateway": 2, "ServeReplica:host-": 2, "ServeReplica:meter": 1}
# Half of the requests to a model in the gateways, a quarter to one in hosts, a quarter to an experiment.
TRAFFIC = (
    Traffic(LOCAL, weight=2, payload=DIGIT),
    Traffic(HOSTED, payload=PICTURE),
    Traffic("digits", payload=DIGIT),
)


@dataclass
class Stage:
    """A running server. `whole`: number of processes by role; `after` undoes the effects of a fault at its end."""

    settings: Settings
    folder: Path
    host: str = "127.0.0.1"
    whole: Mapping[str, int] = field(default_factory=lambda: WHOLE)
    traffic: tuple[Traffic, ...] = TRAFFIC
    database: Postgres | None = None
    missing: int = 0  # answers that are not in the ledger
    after: ExitStack = field(default_factory=ExitStack)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.settings.listen.http_port}"

    def pids(self, role: str) -> set[int]:
        """Processes whose title holds `role`: `host-`, `gateway`, `ServeController` …"""
        return {pid for pid in processes() if role in title(pid)}

    def one(self, role: str) -> int:
        """One of them, always the same while they live."""
        return min(until(lambda: self.pids(role)))

    def until_replaced(self, role: str, lost: int) -> None:
        """Until there are as many of a role as there should be, without one that was lost."""
        until(lambda: lost not in (pids := self.pids(role)) and len(pids) >= self.whole.get(role, 1))

    def until_whole(self) -> None:
        """Until every process there should be is there and requests are answered."""
        until(lambda: all(len(self.pids(role)) == count for role, count in self.whole.items()))
        until(self._answers)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/v2/health/ready", timeout=5).is_success
        except httpx.TransportError:
            return False

    def deploy(self, document: dict[str, object]) -> None:
        """Brings the server to other settings; as `serve deploy` would."""
        self.settings = parse_settings(document)
        local.deploy(self.settings)


def processes(root: int | None = None) -> list[int]:
    """A process, by default this one, and all that it began."""
    return Server(root or os.getpid(), "", 0, 0).processes()


def title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def document(ports: list[int], folder: Path, ledger: str) -> dict[str, object]:
    """The server's configuration: one model in the gateways, one in two hosts, an experiment over the first."""
    arms = [{"name": "one", "model": LOCAL}, {"name": "two", "model": LOCAL}]
    return {
        "listen": dict(zip(("http_port", "grpc_port", "metrics_port"), ports, strict=True)),
        "runtime_dir": str(folder / "node"),
        "gateways": 2,
        "cores": 2,
        "models": [{"name": LOCAL}, {"name": HOSTED, "placement": "dedicated", "replicas": 2, "threads": 1}],
        "experiments": [{"name": "digits", "arms": arms}],
        "ledger": {"url": ledger},
    }


@contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    """A server on this machine: two gateways, two hosts of `HOSTED`, an experiment in PostgreSQL."""
    ports = free_ports(4)
    with postgres(ports.pop()) as database:
        settings = parse_settings(document(ports, folder, database.url))
        local.start(settings)
        try:
            yield Stage(settings, folder, database=database)
        finally:
            local.stop()


class Watched:
    """A load on a thread. `wait` returns when it has run so long; `finish` gives all of it."""

    def __init__(self, plan: Plan) -> None:
        self._started: float | None = None
        self._passed = threading.Condition()
        self._pool = ThreadPoolExecutor(1)
        self._run = self._pool.submit(run_plan, plan, self._progress)

    def _progress(self, run: Run, seconds: float) -> None:
        with self._passed:
            self._started = time.monotonic() - seconds
            self._passed.notify_all()

    def now(self) -> float:
        """Seconds since the load began."""
        return 0.0 if self._started is None else time.monotonic() - self._started

    def wait(self, seconds: float) -> None:
        with self._passed:
            self._passed.wait_for(lambda: self.now() >= seconds, PATIENCE_SECONDS)

    def finish(self) -> Run:
        with self._pool:
            return self._run.result()


def plan(stage: Stage, seconds: float, rate: float = RATE) -> Plan:
    target = Target(stage.url, timeout_s=TIMEOUT_SECONDS)
    duration = BEFORE_SECONDS + seconds
    steps = (Step(rate, WARMUP_SECONDS + duration),)
    return Plan(target, stage.traffic, Load(steps=steps), duration, WARMUP_SECONDS, window_s=WINDOW_SECONDS)
