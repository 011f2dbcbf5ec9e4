"""The capacity simulator against queueing formulas and bounds that hold without it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.batching.latency_curve import LatencyCurve
from serve.planning.capacity import Cost, Fleet, simulate, smallest

FLAT = LatencyCurve((1, 32), (0.010, 0.010))
LINEAR = LatencyCurve((1, 32), (0.001, 0.032))


def cost(
    curve: LatencyCurve = LINEAR, limit: int = 32, loop: float = 0.0, decode: float = 0.0, hop: float = 0.0
) -> Cost:
    return Cost(loop, decode, (hop,), curve, limit)


def test_a_single_request_takes_the_sum_of_its_costs() -> None:
    parts = cost(loop=0.001, decode=0.004, hop=0.002)
    outcome = simulate(parts, Fleet(1, 1, 1), rate=0.1, requests=200)
    assert outcome.p50 == pytest.approx(0.001 + 0.004 + 0.002 + 0.001)
    assert outcome.batch == 1


def test_the_mean_wait_follows_the_pollaczek_khinchine_formula() -> None:
    """M/D/1: the mean wait is load / (2 (1 - load)) service times."""
    service, load = 0.010, 0.5
    unbatched = cost(LatencyCurve((1,), (service,)), limit=1)
    outcome = simulate(unbatched, Fleet(1, 1, 1), rate=load / service, requests=100_000)
    assert outcome.mean == pytest.approx(service + service * load / (2 * (1 - load)), rel=0.03)
    assert outcome.host_busy == pytest.approx(load, rel=0.03)


def test_batches_grow_with_the_load_when_a_batch_costs_as_much_as_an_image() -> None:
    low, high = (simulate(cost(FLAT), Fleet(1, 1, 1), rate) for rate in (20, 2000))
    assert low.batch < 2 < high.batch
    assert high.p99 < 0.05  # runs of single requests would sustain only 100 requests a second


def test_a_second_batch_is_only_sent_when_full() -> None:
    """At 200 requests a second four arrive during the 20 ms of a batch; with two batches in flight only two would."""
    outcome = simulate(cost(FLAT, hop=0.010), Fleet(1, 1, 1), rate=200)
    assert outcome.batch == pytest.approx(4, rel=0.1)
    assert simulate(cost(FLAT, limit=2, hop=0.010), Fleet(1, 1, 1), rate=150).host_busy > 0.7


def test_uneven_network_delays_increase_the_tail_latency() -> None:
    even, uneven = cost(hop=0.010), replace(cost(), hops=(0.005,) * 9 + (0.055,))
    calm, tail = (simulate(costs, Fleet(1, 1, 1), rate=20) for costs in (even, uneven))
    assert tail.p50 < calm.p50
    assert tail.p99 > 2 * calm.p99


def test_more_gateways_make_smaller_batches() -> None:
    few, many = (simulate(cost(FLAT), Fleet(gateways, 1, 4), rate=4000) for gateways in (1, 16))
    assert many.batch < few.batch
    assert many.p99 > few.p99


@given(
    gateways=st.integers(1, 4), decoders=st.integers(1, 3), hosts=st.integers(1, 4), rate=st.floats(1, 3000),
    limit=st.integers(1, 32),
)  # fmt: skip
def test_latency_and_utilization_stay_within_their_bounds(
    gateways: int, decoders: int, hosts: int, rate: float, limit: int
) -> None:
    parts = cost(limit=limit, loop=0.0002, decode=0.001, hop=0.001)
    outcome = simulate(parts, Fleet(gateways, decoders, hosts), rate, requests=500)
    assert outcome.p50 >= 0.0002 + 0.001 + 0.001 + 0.001 - 1e-9
    assert outcome.p99 >= outcome.p50
    assert 1 <= outcome.batch <= limit
    assert all(0 < busy <= 1 + 1e-9 for busy in (outcome.loop_busy, outcome.decode_busy, outcome.host_busy))


def test_the_smallest_fleet_meets_the_target_and_smaller_fleets_do_not() -> None:
    parts = cost(loop=0.0002, decode=0.002, hop=0.002)
    fleet = smallest(parts, decoders=2, rate=2000, p99=0.05, requests=5000)
    assert simulate(parts, fleet, 2000, requests=5000).p99 <= 0.05
    assert fleet.hosts >= 2  # one host runs 1 000 rows a second
    assert fleet.gateways >= 2  # two threads decode 1 000 images a second
    for smaller in (replace(fleet, hosts=fleet.hosts - 1), replace(fleet, gateways=fleet.gateways - 1)):
        assert simulate(parts, smaller, 2000, requests=5000).p99 > 0.05


def test_an_unreachable_target_is_refused() -> None:
    with pytest.raises(ValueError, match=r"takes .* ms even without load"):
        smallest(cost(decode=0.1), decoders=1, rate=10, p99=0.05)
