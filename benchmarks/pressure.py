"""Overload and endurance: goodput beyond the capacity, and memory over time and over many clients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.load import wrk
from benchmarks.nets import Net
from benchmarks.openloop import Account, offer
from benchmarks.sections import OCTETS, Row, Setup, classify, model
from benchmarks.server import Server, serving

DEADLINE_MS = 200
DEADLINE = {"X-Request-Timeout-Ms": str(DEADLINE_MS)}
RECOVERY_SECONDS = 2.0
CLIENTS = 100_000
SOAK_RATE = 0.5


@dataclass(frozen=True)
class Offer:
    """Load as a multiple of the capacity; requests scheduled in the first `after` seconds do not count."""

    name: str
    times: float
    after: float = 0.0


# The capacity is measured after each phase, but not before the load that shows how soon the server recovers.
PHASES = (
    (Offer("half", 0.5),),
    (Offer("twice", 2.0),),
    (Offer("five times", 5.0), Offer("half, from 2 s after the overload", 0.5, RECOVERY_SECONDS)),
)

LEFT = (Offer("five times, threads on one core", 5.0),)


def overload(setup: Setup) -> list[Row]:
    """ResNet-18, photos, every request with a deadline of 200 ms: half of the capacity, twice, five times, half again.

    The machine's speed drifts, so the capacity is measured again after each phase. The goodput is given as a fraction of the
    mean of the capacities right before and right after. The last row is of a server whose threads leave a core to its event loop
    and to the client.
    """
    net = setup.resnet18()
    return [*_phases(setup, net, PHASES), *_phases(setup, net, (LEFT,), cores=1)]


def _phases(setup: Setup, net: Net, phases: Sequence[Sequence[Offer]], **settings: Any) -> list[Row]:
    with serving(setup.scratch, [model(net)], **settings) as server:
        url = classify(server, net.name)
        measure = partial(wrk, url, net.image, 16, setup.seconds, OCTETS)
        capacity, rows = measure().rps, []
        for phase in phases:
            offered = [_offer(server, url, net.image, load, capacity, setup.seconds) for load in phase]
            before, capacity = capacity, measure().rps
            for load, (account, cpu) in zip(phase, offered, strict=True):
                rows.append(_row(load, account, cpu, (before + capacity) / 2, setup.seconds))
        return rows


def _offer(server: Server, url: str, body: Path, load: Offer, capacity: float, seconds: float) -> tuple[Account, float]:
    """The client's account of the requests, and the server's CPU seconds."""
    cpu = server.cpu_seconds()
    account = offer(url, body, capacity * load.times, seconds + load.after, DEADLINE)
    return account, server.cpu_seconds() - cpu


def _row(load: Offer, account: Account, cpu: float, capacity: float, seconds: float) -> Row:
    after = load.after
    good = account.count(200, DEADLINE_MS / 1000, after) / seconds
    return {
        "name": load.name,
        "offered": sum(at >= after for at in account.scheduled) / seconds,
        "good": good,
        "of_capacity": good / capacity,
        "good_p99_ms": account.p99_ms(200, after),
        "refused": account.count(503, after=after) / seconds,
        "refused_p99_ms": account.p99_ms(503, after),
        "client_late_p99_ms": account.late_p99_ms(503, after),
        "late": account.count(504, after=after),
        "unanswered": account.count(0, after=after),
        "cpu_ms_per_request": cpu / max(1, account.count(200)) * 1000,
    }


def memory(setup: Setup) -> list[Row]:
    """LeNet-5: 100 000 clients that send one request each, and a soak test at half load."""
    net = setup.lenet5()
    with serving(setup.scratch, [model(net)]) as server:
        url = classify(server, net.name)
        short_lived = wrk(url, net.image, 64, setup.seconds, OCTETS, keep_alive=False)  # also warms every buffer
        rows = [
            _grown(server, f"{CLIENTS:,} clients, one request each", lambda: _clients(url, net.image, short_lived.rps))
        ]
        capacity = wrk(url, net.image, 32, setup.seconds, OCTETS).rps
        name = f"{setup.soak_seconds / 60:.0f} minutes at half load ({capacity * SOAK_RATE:,.0f}/s)"
        rows.append(_grown(server, name, lambda: offer(url, net.image, capacity * SOAK_RATE, setup.soak_seconds, {})))
        return rows


def _clients(url: str, body: Path, rps: float) -> None:
    wrk(url, body, 64, CLIENTS / rps, OCTETS, keep_alive=False)


def _grown(server: Server, name: str, load: Callable[[], object]) -> Row:
    before = server.memory_bytes()
    load()
    return {"name": name, "before_mb": before / 1e6, "after_mb": server.memory_bytes() / 1e6}
