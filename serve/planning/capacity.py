"""Capacity planning: a discrete-event simulation of the request path, with measured service times.

Requests arrive as a Poisson process and are spread evenly over gateways. In each gateway they pass the event loop (one
server), the decode threads (one server each) and the queue. As soon as `serve.batching.slots` would grant a slot, the queued
requests form a batch, which runs on the host that is free first. Transfer times are sampled from measurements. The model
assumes that stages share no cores, so that each gateway and host is as fast as in a measurement alone.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from serve.batching.latency_curve import LatencyCurve
from serve.executors.credits import SLOTS_PER_HOST

REQUESTS = 20_000
MAX_PROCESSES = 10_000  # gateways or hosts; a larger result indicates a wrong rate or time


@dataclass(frozen=True)
class Cost:
    """Service times of a request in seconds."""

    loop: float  # event loop of the gateway, per request
    decode: float  # decode thread, per request
    # Samples of a batch's transfer to a host and back, plus its run time in excess of the curve.
    hops: tuple[float, ...]
    curve: LatencyCurve
    limit: int  # rows of the largest batch


@dataclass(frozen=True)
class Fleet:
    """Numbers of gateways, of decode threads in each gateway, and of hosts."""

    gateways: int
    decoders: int
    hosts: int


@dataclass(frozen=True)
class Outcome:
    """Latencies in seconds, mean rows of a batch, and the utilisation of each resource (0..1)."""

    mean: float
    p50: float
    p99: float
    batch: float
    loop_busy: float
    decode_busy: float
    host_busy: float

    @property
    def busiest(self) -> str:
        """The resource with the highest utilisation, which saturates first as the load grows."""
        busy = {"event loop": self.loop_busy, "decode": self.decode_busy, "hosts": self.host_busy}
        return max(busy, key=lambda kind: busy[kind])


@dataclass
class Gateway:
    """State of a gateway: (decoded, arrived) times of future requests, arrival times of queued ones, and batches in flight."""

    ready: deque[tuple[float, float]]
    waiting: deque[float] = field(default_factory=deque)
    in_flight: int = 0


def simulate(cost: Cost, fleet: Fleet, rate: float, requests: int = REQUESTS, seed: int = 0) -> Outcome:
    """Simulates `requests` arrivals at `rate` per second. The first tenth is warm-up and is not counted."""
    random = np.random.default_rng(seed)
    arrivals = np.cumsum(random.exponential(1 / rate, requests))
    gateways = []
    for number in range(fleet.gateways):
        arrived: list[float] = arrivals[number :: fleet.gateways].tolist()
        decoded = _pass(_pass(arrived, 1, cost.loop), fleet.decoders, cost.decode)
        gateways.append(Gateway(deque(sorted(zip(decoded, arrived, strict=True)))))
    finished, rows, busy = _run(cost, fleet, gateways, iter(random.choice(cost.hops, requests).tolist()))
    latencies = np.array([end - start for start, end in sorted(finished)])[requests // 10 :]
    p50, p99 = np.quantile(latencies, (0.5, 0.99))
    span = max(end for _, end in finished)
    return Outcome(
        mean=float(np.mean(latencies)),
        p50=float(p50),
        p99=float(p99),
        batch=float(np.mean(rows)),
        loop_busy=cost.loop * requests / (fleet.gateways * span),
        decode_busy=cost.decode * requests / (fleet.gateways * fleet.decoders * span),
        host_busy=busy / (fleet.hosts * span),
    )


def _pass(arrivals: Sequence[float], servers: int, seconds: float) -> list[float]:
    """Departure times from a first-come, first-served stage of `servers` with a fixed service time."""
    free = [0.0] * servers
    ends = []
    for arrival in arrivals:
        end = max(arrival, heapq.heappop(free)) + seconds
        heapq.heappush(free, end)
        ends.append(end)
    return ends


def _run(
    cost: Cost, fleet: Fleet, gateways: Sequence[Gateway], hops: Iterator[float]
) -> tuple[list[tuple[float, float]], list[int], float]:
    """Arrival and end of every request, rows of every batch, and the total busy seconds of engines."""
    # Batches in flight of a gateway: its share of the hosts' credits.
    count = max(1, SLOTS_PER_HOST * fleet.hosts // fleet.gateways)
    eager = max(1, count // SLOTS_PER_HOST)
    free = [0.0] * fleet.hosts  # time at which each host is free
    events = [(gateway.ready[0][0], number, False) for number, gateway in enumerate(gateways) if gateway.ready]
    heapq.heapify(events)
    finished: list[tuple[float, float]] = []
    rows: list[int] = []
    busy = 0.0
    while events:
        now, number, ended = heapq.heappop(events)
        gateway = gateways[number]
        if ended:
            gateway.in_flight -= 1
        else:
            gateway.waiting.append(gateway.ready.popleft()[1])
            if gateway.ready:
                heapq.heappush(events, (gateway.ready[0][0], number, False))
        while gateway.waiting and gateway.in_flight < (count if len(gateway.waiting) >= cost.limit else eager):
            batch = [gateway.waiting.popleft() for _ in range(min(cost.limit, len(gateway.waiting)))]
            gateway.in_flight += 1
            hop, seconds = next(hops), cost.curve.predict(len(batch))
            end = max(now + hop / 2, heapq.heappop(free)) + seconds
            heapq.heappush(free, end)
            heapq.heappush(events, (end + hop / 2, number, True))
            finished += [(arrival, end + hop / 2) for arrival in batch]
            rows.append(len(batch))
            busy += seconds
    return finished, rows, busy


def smallest(cost: Cost, decoders: int, rate: float, p99: float, requests: int = REQUESTS) -> Fleet:
    """The smallest fleet with a 99th percentile of at most `p99` seconds at `rate` requests/s.

    Raises ValueError if a single request without load takes longer, or if it needs more than MAX_PROCESSES processes of a kind.
    """
    alone = cost.loop + cost.decode + float(np.quantile(cost.hops, 0.99)) + cost.curve.predict(1)
    if alone > p99:
        raise ValueError(
            f"a request takes {alone * 1e3:.1f} ms even without load, so more machines do not help; raise --p99"
        )
    per_host = cost.limit / cost.curve.predict(cost.limit)
    fleet = Fleet(
        gateways=max(1, int(rate * max(cost.loop, cost.decode / decoders))),
        decoders=decoders,
        hosts=max(1, int(rate / per_host)),
    )
    while True:
        outcome = simulate(cost, fleet, rate, requests)
        if outcome.p99 <= p99:
            return fleet
        if max(fleet.gateways, fleet.hosts) >= MAX_PROCESSES:
            raise ValueError(f"the load needs more than {MAX_PROCESSES} gateways or hosts; lower the rate")
        fleet = _larger(fleet, outcome)


def _larger(fleet: Fleet, outcome: Outcome) -> Fleet:
    """Adds one, or 2 %, of the resource with the highest utilisation."""
    if outcome.busiest == "hosts":
        return replace(fleet, hosts=fleet.hosts + max(1, fleet.hosts // 50))
    return replace(fleet, gateways=fleet.gateways + max(1, fleet.gateways // 50))
