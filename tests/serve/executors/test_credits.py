"""Shares of the gateways in the slots of the hosts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serve.executors.credits import ACTIVE_SECONDS, FORGET_SECONDS, SLOTS_PER_HOST, Callers, Credits


def test_a_single_gateway_has_all_slots() -> None:
    credits = Credits(hosts=3)
    assert credits.count == 3 * SLOTS_PER_HOST
    for host in "abc":
        credits.responded(host, callers=1, now=0.0)
    assert credits.count == 3 * SLOTS_PER_HOST


def test_a_gateway_without_calls_has_no_share() -> None:
    callers = Callers()
    assert callers.called("one", 0.0) == 1
    assert callers.called("two", 0.1) == 2
    assert callers.called("two", 0.2 + ACTIVE_SECONDS) == 1


def test_a_host_without_responses_gives_no_credits() -> None:
    credits = Credits(hosts=2)
    credits.responded("a", 1, 0.0)
    assert credits.responded("b", 1, 0.0) == 2 * SLOTS_PER_HOST
    assert credits.responded("a", 1, FORGET_SECONDS + 1) == SLOTS_PER_HOST


@given(st.integers(1, 6), st.integers(1, 8))
def test_shares_are_equal_and_fit_the_hosts(gateways: int, hosts: int) -> None:
    """No host gets more batches than it has slots, except for the one batch that each gateway may always send."""
    callers_by_host = [Callers() for _ in range(hosts)]
    counts = [Credits(hosts) for _ in range(gateways)]
    for _ in range(2):
        for gateway, credits in enumerate(counts):
            for host, callers in enumerate(callers_by_host):
                credits.responded(host, callers.called(gateway, 0.0), 0.0)
    assert len({credits.count for credits in counts}) == 1
    assert sum(credits.count for credits in counts) <= max(SLOTS_PER_HOST * hosts, gateways)
