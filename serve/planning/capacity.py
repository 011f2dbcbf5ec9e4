"""How many gateways and hosts a traffic needs: a simulation of the request path, fed by measured times.

Requests arrive as a Poisson process and are spread evenly over gateways. In each gateway they pass the event loop (one
server), the decode threads (one server each) and the queue. A batch is formed when `serve.batching.slots` has a permit, from the
requests that wait then, and goes to the host that is free first. The spread of run and transfer times is drawn from
measurements. Stages do not share cores: a gateway and a host are as fast as they were measured alone.
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
MOST = 10_000  # gateways or hosts; more is a mistake in the question


@dataclass(frozen=True)
class Cost:
    """What a request costs, in seconds."""

    loop: float  # of the gateway's event loop, per request
    decode: float  # of a decode thread, per request
    hops: tuple[float, ...]  # what a batch's way to a host and back took, and its run beyond the curve; one is drawn
    curve: LatencyCurve
    limit: int  # rows of the largest batch


@dataclass(frozen=True)
class Fleet:
    """What serves: gateways with so many decode threads each, and hosts."""

    gateways: int
    decoders: int
    hosts: int


@dataclass(frozen=True)
class Outcome:
    """Latencies in seconds, mean rows of a batch, and how busy each kind is (0..1)."""

    mean: float
    p50: float
    p99: float
    batch: float
    loop_busy: float
    decode_busy: float
    host_busy: float

    @property
    def busiest(self) -> str:
        """What breaks first when there is more to do."""
        busy = {"event loop": self.loop_busy, "decode": self.decode_busy, "hosts": self.host_busy}
        return max(busy, key=lambda kind: busy[kind])


@dataclass
class Gateway:
    """The line of one gateway: when its requests arrived and were decoded, who waits, how many batches are under way."""

    ready: deque[tuple[float, float]]
    waiting: deque[float] = field(default_factory=deque)
    taken: int = 0


def simulate(cost: Cost, fleet: Fleet, rate: float, requests: int = REQUESTS, seed: int = 0) -> Outcome:
    """What `requests` arrivals at `rate` per second meet; the first tenth fills the system and is not counted."""
    random = np.random.default_rng(seed)
    arrivals = np.cumsum(random.exponential(1 / rate, requests))
    gateways = []
    for number in range(fleet.gateways):
        mine: list[float] = arrivals[number :: fleet.gateways].tolist()
        decoded = _pass(_pass(mine, 1, cost.loop), fleet.decoders, cost.decode)
        gateways.append(Gateway(deque(sorted(zip(decoded, mine, strict=True)))))
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
    """When each is through a stage of `servers`, first come, first served."""
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
    """Arrival and end of every request, rows of every batch, seconds of engines."""
    count = max(1, SLOTS_PER_HOST * fleet.hosts // fleet.gateways)  # of batches under way, as credits share them
    eager = max(1, count // SLOTS_PER_HOST)
    free = [0.0] * fleet.hosts  # when each host is
    events = [(one.ready[0][0], number, False) for number, one in enumerate(gateways) if one.ready]
    heapq.heapify(events)
    finished: list[tuple[float, float]] = []
    rows: list[int] = []
    busy = 0.0
    while events:
        now, number, ended = heapq.heappop(events)
        gateway = gateways[number]
        if ended:
            gateway.taken -= 1
        else:
            gateway.waiting.append(gateway.ready.popleft()[1])
            if gateway.ready:
                heapq.heappush(events, (gateway.ready[0][0], number, False))
        while gateway.waiting and gateway.taken < (count if len(gateway.waiting) >= cost.limit else eager):
            batch = [gateway.waiting.popleft() for _ in range(min(cost.limit, len(gateway.waiting)))]
            gateway.taken += 1
            hop, seconds = next(hops), cost.curve.predict(len(batch))
            end = max(now + hop / 2, heapq.heappop(free)) + seconds
            heapq.heappush(free, end)
            heapq.heappush(events, (end + hop / 2, number, True))
            finished += [(arrival, end + hop / 2) for arrival in batch]
            rows.append(len(batch))
            busy += seconds
    return finished, rows, busy


def smallest(cost: Cost, decoders: int, rate: float, p99: float, requests: int = REQUESTS) -> Fleet:
    """The smallest fleet that keeps to `p99` seconds at `rate`. Raises ValueError when a lone request takes longer."""
    alone = cost.loop + cost.decode + float(np.quantile(cost.hops, 0.99)) + cost.curve.predict(1)
    if alone > p99:
        raise ValueError(f"a lone request takes {alone * 1e3:.1f} ms: no number of machines makes it faster")
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
        if max(fleet.gateways, fleet.hosts) >= MOST:
            raise ValueError(f"more than {MOST} gateways or hosts: ask for less")
        fleet = _larger(fleet, outcome)


def _larger(fleet: Fleet, outcome: Outcome) -> Fleet:
    """One more, or 2 % more, of what is busiest."""
    if outcome.busiest == "hosts":
        return replace(fleet, hosts=fleet.hosts + max(1, fleet.hosts // 50))
    return replace(fleet, gateways=fleet.gateways + max(1, fleet.gateways // 50))
