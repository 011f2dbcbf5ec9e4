"""Closed-loop load with wrk and h2load: C programs, so that the client uses as little of the shared cores as possible."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from convoy.errors import ConfigError

SCRIPT = Path(__file__).parent / "closed.lua"
WARM_SECONDS = 2


@dataclass(frozen=True)
class Load:
    """What a client measured: requests per second, latency quantiles, the number of failures, and that of all requests."""

    rps: float
    p50_ms: float
    p99_ms: float
    failed: int
    requests: int = 0


def wrk(
    url: str,
    body: Path,
    connections: int,
    seconds: float,
    headers: Mapping[str, str],
    keep_alive: bool = True,
    pause_ms: int = 0,
    warm_up: bool = True,
) -> Load:
    """Posts `body` over `connections` connections. Raises ConfigError without wrk.

    With a pause, each connection waits a random time of that mean before a request, for a load below the server's capacity.
    """
    lines = dict(headers) | ({} if keep_alive else {"Connection": "close"})
    environment = {
        "BENCH_BODY": str(body),
        "BENCH_HEADERS": "\n".join(f"{name}: {value}" for name, value in lines.items()),
        "BENCH_PAUSE_MS": str(pause_ms),
    }

    def run(duration: float) -> str:
        command = [
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{math.ceil(duration)}s",
            "--timeout",
            "30s",
            "-s",
            str(SCRIPT),
            url,
        ]
        return _run("wrk", command, environment)

    if warm_up:
        run(WARM_SECONDS)
    rps, p50, p99, status, errors, requests = re.findall(r"RESULT (\S+) (\S+) (\S+) (\d+) (\d+) (\d+)", run(seconds))[0]
    return Load(float(rps), float(p50), float(p99), int(status) + int(errors), int(requests))


def h2load(url: str, message: Path, clients: int, streams: int, requests: int, warm_up: bool = True) -> Load:
    """Sends a framed gRPC message `requests` times over `clients` connections, with `streams` concurrent calls on each.

    h2load counts HTTP successes, and reports only mean and extremes of the latency: both quantiles are the mean.
    Raises ConfigError without h2load.
    """

    def run(count: int) -> str:
        head = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
        command = ["h2load", "-n", str(count), "-c", str(clients), "-m", str(streams), "-t", "1", "-d", str(message)]
        return _run("h2load", [*command, *head, url], {})

    if warm_up:
        run(max(500, requests // 10))
    text = run(requests)
    rps = float(re.findall(r"([\d.]+) req/s", text)[0])
    succeeded = int(re.findall(r"(\d+) succeeded", text)[0])
    mean = _milliseconds(*re.findall(r"time for request:\s+\S+\s+\S+\s+([\d.]+)(us|ms|s)", text)[0])
    return Load(rps, mean, mean, requests - succeeded, requests)


def _milliseconds(number: str, unit: str) -> float:
    return float(number) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit]


def _run(program: str, command: list[str], environment: Mapping[str, str]) -> str:
    if shutil.which(program) is None:
        raise ConfigError(f"{program} is not installed: apt-get install wrk nghttp2-client")
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True).stdout
