"""Measures servers in turns: each is started, loaded and stopped, then all again, because the speed of the machine drifts."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.load import Load, h2load, wrk
from benchmarks.peers.requests import Payload
from benchmarks.server import tree_cpu_seconds

TURNS = 3
WARM_SECONDS = 2.0
CLIENTS = 4  # connections of h2load; the calls in flight are spread over them
WARM_REQUESTS = 500  # of h2load
LIMIT, RAW = "limit: bare uvicorn", "limit: raw protocol"

Row = dict[str, Any]
Drive = Callable[[int, float], Load]


@dataclass(frozen=True)
class Target:
    """A row of the tables: a running server, by its process id, and a load on it for a number in flight and of seconds."""

    name: str
    pid: int
    drive: Drive
    limit: str = LIMIT


Contender = Callable[[], AbstractContextManager[Sequence[Target]]]


@dataclass
class Results:
    """What one target measured in each turn."""

    limit: str
    loads: list[Load] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)


def over_http(url: str, payload: Payload) -> Drive:
    """A load with wrk."""
    return partial(_over_http, url, payload)


def over_grpc(url: str, message: Path) -> Drive:
    """A load with h2load."""
    return _OverGrpc(url, message)


def in_turns(
    contenders: Sequence[Contender], in_flight: Sequence[int], seconds: float, turns: int = TURNS
) -> list[Row]:
    """Medians over the turns; `of_limit` and `of_raw` are medians of the ratios within a turn."""
    found: dict[tuple[str, int], Results] = {}
    for _ in range(turns):
        for contender in contenders:
            with contender() as targets:
                for target in targets:
                    for count in in_flight:
                        _measure(target, count, seconds, found.setdefault((target.name, count), Results(target.limit)))
    return [_row(name, count, found) for name, count in found]


def _measure(target: Target, in_flight: int, seconds: float, results: Results) -> None:
    target.drive(in_flight, WARM_SECONDS)
    cpu = tree_cpu_seconds(target.pid)
    load = target.drive(in_flight, seconds)
    cpu = tree_cpu_seconds(target.pid) - cpu
    results.loads.append(load)
    results.cpu_us.append(cpu / max(1, load.requests) * 1e6)


def _row(name: str, in_flight: int, found: Mapping[tuple[str, int], Results]) -> Row:
    results = found[name, in_flight]
    loads = results.loads
    return {
        "name": name,
        "connections": in_flight,
        "rps": statistics.median(load.rps for load in loads),
        "of_limit": _ratio(loads, found.get((results.limit, in_flight))),
        "of_raw": _ratio(loads, found.get((RAW, in_flight))),
        "p50_ms": statistics.median(load.p50_ms for load in loads),
        "p99_ms": statistics.median(load.p99_ms for load in loads),
        "cpu_us": statistics.median(results.cpu_us),
        "failed": sum(load.failed for load in loads),
    }


def _ratio(loads: Sequence[Load], base: Results | None) -> float | None:
    if base is None:
        return None
    return statistics.median(load.rps / other.rps for load, other in zip(loads, base.loads, strict=True))


def _over_http(url: str, payload: Payload, in_flight: int, seconds: float) -> Load:
    return wrk(url, payload.body, in_flight, seconds, payload.headers, warm_up=False)


class _OverGrpc:
    """h2load takes a number of requests, so the first call for a number in flight, the warm-up, finds the rate."""

    def __init__(self, url: str, message: Path) -> None:
        self._url, self._message = url, message
        self._rates: dict[int, float] = {}

    def __call__(self, in_flight: int, seconds: float) -> Load:
        clients = min(CLIENTS, in_flight)
        rate = self._rates.get(in_flight)
        requests = WARM_REQUESTS if rate is None else max(WARM_REQUESTS, round(rate * seconds))
        load = h2load(self._url, self._message, clients, in_flight // clients, requests, warm_up=False)
        self._rates[in_flight] = load.rps
        return load
