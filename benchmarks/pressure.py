"""More than fits, and long: goodput beyond the capacity, and memory over time and over many clients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.load import wrk
from benchmarks.openloop import Account, offer
from benchmarks.sections import OCTETS, Row, Setup, classify, model
from benchmarks.server import Server, serving

DEADLINE_MS = 200
DEADLINE = {"X-Request-Timeout-Ms": str(DEADLINE_MS)}
RECOVERY_SECONDS = 2.0
CLIENTS = 100_000
SOAK_RATE = 0.5


def overload(setup: Setup) -> list[Row]:
    """ResNet-18, photos, every request with a deadline of 200 ms: half of the capacity, twice, five times, half again."""
    net = setup.resnet18()
    with serving(setup.scratch, [model(net)]) as server:
        url = classify(server, net.name)
        capacity = wrk(url, net.image, 16, setup.seconds, OCTETS).rps
        rows = []
        for name, times, after in (
            ("half", 0.5, 0.0),
            ("twice", 2.0, 0.0),
            ("five times", 5.0, 0.0),
            ("half, from 2 s after that", 0.5, RECOVERY_SECONDS),
        ):
            cpu = server.cpu_seconds()
            account = offer(url, net.image, capacity * times, setup.seconds + after, DEADLINE)
            cpu = server.cpu_seconds() - cpu
            rows.append(
                _row(name, account, capacity, after, setup.seconds) | {"cpu_ms_per_request": _per(cpu, account)}
            )
        return rows


def _per(cpu: float, account: Account) -> float:
    return cpu / max(1, account.count(200)) * 1000


def _row(name: str, account: Account, capacity: float, after: float, seconds: float) -> Row:
    good = account.count(200, DEADLINE_MS / 1000, after) / seconds
    return {
        "name": name,
        "offered": sum(at >= after for at in account.scheduled) / seconds,
        "good": good,
        "of_capacity": good / capacity,
        "good_p99_ms": account.p99_ms(200, after),
        "refused": account.count(503, after=after) / seconds,
        "refused_p99_ms": account.p99_ms(503, after),
        "late": account.count(504, after=after),
        "unanswered": account.count(0, after=after),
    }


def memory(setup: Setup) -> list[Row]:
    """LeNet-5: 100 000 clients that come once, and a soak at half load."""
    net = setup.lenet5()
    with serving(setup.scratch, [model(net)]) as server:
        url = classify(server, net.name)
        many = wrk(url, net.image, 64, setup.seconds, OCTETS, keep_alive=False)  # also warms every buffer
        rows = [_grown(server, f"{CLIENTS:,} clients, one request each", lambda: _clients(url, net.image, many.rps))]
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
