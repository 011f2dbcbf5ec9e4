"""The stage of a fault: a server started by this process, its processes by role, and a load that can be observed."""

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
BEFORE_SECONDS = 5.0  # of load before the fault, in which nothing may be disturbed
TIMEOUT_SECONDS = 40.0
WINDOW_SECONDS = 0.25
DIGIT, PICTURE = Payload(side=28, channels=1, format="png"), Payload(side=32, format="png")
PROCESSES = {"ServeController": 1, "ServeReplica:gateway": 2, "ServeReplica:host-": 2, "ServeReplica:meter": 1}
# Half of the requests go to a model in the gateways, a quarter to a model in hosts, a quarter to an experiment.
TRAFFIC = (
    Traffic(LOCAL, weight=2, payload=DIGIT),
    Traffic(HOSTED, payload=PICTURE),
    Traffic("digits", payload=DIGIT),
)


@dataclass
class Stage:
    """A running server. `expected`: number of processes by role; `after` undoes the effects of a fault after its measurement."""

    settings: Settings
    folder: Path
    host: str = "127.0.0.1"
    expected: Mapping[str, int] = field(default_factory=lambda: PROCESSES)
    traffic: tuple[Traffic, ...] = TRAFFIC
    database: Postgres | None = None
    missing: int = 0  # answers without a row in the ledger
    after: ExitStack = field(default_factory=ExitStack)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.settings.listen.http_port}"

    def pids(self, role: str) -> set[int]:
        """Processes whose title contains `role`, such as `host-`, `gateway` or `ServeController`."""
        return {pid for pid in processes() if role in title(pid)}

    def pid(self, role: str) -> int:
        """One process of a role; the same one until it ends."""
        return min(until(lambda: self.pids(role)))

    def until_replaced(self, role: str, lost: int) -> None:
        """Waits until a role has its expected number of processes without `lost`."""
        until(lambda: lost not in (pids := self.pids(role)) and len(pids) >= self.expected.get(role, 1))

    def until_healthy(self) -> None:
        """Waits until all expected processes run and the server is ready."""
        until(lambda: all(len(self.pids(role)) == count for role, count in self.expected.items()))
        until(self._is_ready)

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/v2/health/ready", timeout=5).is_success
        except httpx.TransportError:
            return False

    def deploy(self, document: dict[str, object]) -> None:
        """Deploys other settings, as `serve deploy` would."""
        self.settings = parse_settings(document)
        local.deploy(self.settings)


def processes(root: int | None = None) -> list[int]:
    """Ids of a process, by default this one, and of its descendants."""
    return Server(root or os.getpid(), "", 0, 0).processes()


def title(pid: int) -> str:
    """Command line of a process, empty if it has ended. Ray writes the role of a process there."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def document(ports: list[int], folder: Path, ledger: str) -> dict[str, object]:
    """The server's configuration: a model in the gateways, one in two hosts, and an experiment over the first."""
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
    """A load that runs on a thread."""

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
        """Seconds since the start of the load."""
        return 0.0 if self._started is None else time.monotonic() - self._started

    def wait(self, seconds: float) -> None:
        """Waits until the load has run for `seconds`."""
        with self._passed:
            self._passed.wait_for(lambda: self.now() >= seconds, PATIENCE_SECONDS)

    def finish(self) -> Run:
        """Waits for the end of the load. Returns all of its counts."""
        with self._pool:
            return self._run.result()


def plan(stage: Stage, seconds: float, rate: float = RATE) -> Plan:
    """A load of `rate` requests/s that lasts `seconds` after the fault."""
    target = Target(stage.url, timeout_s=TIMEOUT_SECONDS)
    duration = BEFORE_SECONDS + seconds
    steps = (Step(rate, WARMUP_SECONDS + duration),)
    return Plan(target, stage.traffic, Load(steps=steps), duration, WARMUP_SECONDS, window_s=WINDOW_SECONDS)
