"""`python -m benchmarks.capacity`: compares the capacity simulation with a running server, and plans fleets for larger loads.

The server has one gateway and one host of ResNet-20. Requests sent one by one give the times of the stages; two loads are
measured, and simulated with these times. `--write` puts the tables into docs/capacity.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.marks import write_between
from benchmarks.server import free_ports
from convoy.cli.capacity import curve_of
from models.artifact import BUNDLED
from serve.config.loading import parse_settings
from serve.config.schema import Settings
from serve.config.thread_plan import plan_threads
from serve.deployments import local
from serve.planning.capacity import Cost, Fleet, simulate, smallest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "capacity.md"
BEGIN, END = "<!-- made by python -m benchmarks.capacity --write -->", "<!-- end -->"
MODEL = "resnet20-cifar10"
LONE_REQUESTS, PAUSE_SECONDS = 400, 0.04  # to an idle server, with a pause before each
MEASURED = (100, 250)  # images/s, as are PLANNED
DURATION = "20s"
TARGET_SECONDS = 0.05
PLANNED = (1_000, 10_000, 100_000)
IMAGE = (BUNDLED / "samples" / "cifar10-1-ship.png").read_bytes()


@dataclass(frozen=True)
class Latencies:
    """Latencies measured by the load generator, in seconds."""

    p50: float
    p99: float


@dataclass(frozen=True)
class LoneRequests:
    """Requests to an idle server: seconds of the stages of each, and of the time outside of the server's measurement."""

    stages: list[dict[str, float]]
    outside: list[float]

    def mean(self, *stages: str) -> float:
        """Mean seconds of a request in these stages together."""
        return float(np.mean([sum(request[stage] for stage in stages) for request in self.stages]))


@contextmanager
def running(folder: Path) -> Iterator[Settings]:
    listen = dict(zip(("http_port", "grpc_port", "metrics_port"), free_ports(3), strict=True))
    model = {"name": MODEL, "placement": "dedicated", "threads": 1}
    settings = parse_settings({"listen": listen, "runtime_dir": str(folder / "node"), "models": [model]})
    local.start(settings)
    try:
        yield settings
    finally:
        local.stop()


def alone(settings: Settings) -> LoneRequests:
    """Sends requests one after the other, on one connection."""
    stages, outside = [], []
    connection = HTTPConnection("127.0.0.1", settings.listen.http_port)
    for _ in range(LONE_REQUESTS):
        time.sleep(PAUSE_SECONDS)
        started = time.monotonic()
        connection.request("POST", f"/v1/models/{MODEL}/classify", IMAGE)
        answer = connection.getresponse().read()
        took = time.monotonic() - started
        timings = {stage: ms / 1e3 for stage, ms in json.loads(answer)["timings_ms"].items()}
        stages.append(timings)
        outside.append(took - timings["total"])
    return LoneRequests(stages, outside)


def load(settings: Settings, rate: int, folder: Path) -> Latencies:
    """Sends 32x32 images at a fixed rate (open loop, images/s)."""
    out = folder / f"{rate}.json"
    subprocess.run(
        [
            *(sys.executable, "-m", "loadtest", "run", f"http://127.0.0.1:{settings.listen.http_port}", "-m", MODEL),
            *("--rate", str(rate), "--duration", DURATION, "--side", "32", "--format", "png", "--json", str(out)),
        ],
        cwd=ROOT,
        check=False,  # the load test also fails for an unsteady load, which is no error here
        stdout=subprocess.DEVNULL,
    )
    report: dict[str, Any] = json.loads(out.read_text())
    quantiles = report["total"]["latency"]["quantiles"]
    return Latencies(quantiles["p50"] / 1e3, quantiles["p99"] / 1e3)


def measured_cost(settings: Settings, lone: LoneRequests) -> Cost:
    plan = httpx.get(f"http://127.0.0.1:{settings.listen.http_port}/v1/explain", timeout=10).json()
    curve, limit = curve_of(plan, MODEL)
    hops = tuple(max(0.0, request["run"] - curve.predict(1)) for request in lone.stages)
    return Cost(lone.mean("receive", "post"), lone.mean("decode"), hops, curve, limit)


def comparison(cost: Cost, outside: float, decoders: int, measured: dict[int, Latencies]) -> list[str]:
    lines = [
        "| images/s | p50 measured | p50 simulated | p99 measured | p99 simulated | host busy, simulated |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for rate, latencies in measured.items():
        outcome = simulate(cost, Fleet(1, decoders, 1), rate)
        pairs = ((latencies.p50, outcome.p50 + outside), (latencies.p99, outcome.p99 + outside))
        cells = " | ".join(f"{1e3 * real:.1f} ms | {1e3 * simulated:.1f} ms" for real, simulated in pairs)
        lines.append(f"| {rate} | {cells} | {outcome.host_busy:.0%} |")
    return lines


def smallest_fleets(cost: Cost, decoders: int) -> list[str]:
    lines = [
        f"| images/s | gateways | hosts | p99 (target: {1e3 * TARGET_SECONDS:.0f} ms) | rows per batch | busiest component |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for rate in PLANNED:
        fleet = smallest(cost, decoders, rate, TARGET_SECONDS)
        outcome = simulate(cost, fleet, rate)
        lines.append(
            f"| {rate:,} | {fleet.gateways} | {fleet.hosts} | {1e3 * outcome.p99:.1f} ms | {outcome.batch:.1f} "
            f"| {outcome.busiest} |"
        )
    return lines


def times(cost: Cost, outside: float) -> list[str]:
    curve = ", ".join(f"{size}: {1e3 * cost.curve.predict(size):.2f}" for size in cost.curve.sizes)
    median, p99 = (1e3 * float(np.quantile(cost.hops, share)) for share in (0.5, 0.99))
    return [
        f"Per request: event loop {1e3 * cost.loop:.2f} ms, decode {1e3 * cost.decode:.2f} ms, outside of the server's "
        f"measurement {1e3 * outside:.2f} ms. Per batch: round trip to the host {median:.2f} ms (p99: {p99:.2f} ms); "
        f"engine, in ms by number of rows: {curve}."
    ]


def measure() -> str:
    with tempfile.TemporaryDirectory() as name, running(Path(name)) as settings:
        folder = Path(name)
        lone = alone(settings)
        cost, outside = measured_cost(settings, lone), float(np.median(lone.outside))
        decoders = plan_threads(settings).decode
        measured = {rate: load(settings, rate, folder) for rate in MEASURED}
    blocks = (times(cost, outside), comparison(cost, outside, decoders, measured), smallest_fleets(cost, decoders))
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"put the tables into {PAGE.relative_to(ROOT)}")
    arguments = parser.parse_args()
    text = measure()
    print(text)
    if arguments.write:
        write_between(PAGE, BEGIN, text, END)


if __name__ == "__main__":
    main()
