from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serve.executors.credits import ACTIVE_SECONDS, FORGET_SECONDS, SLOTS_PER_HOST, Callers, Credits


def test_a_lone_gateway_has_every_slot() -> None:
    credits = Credits(hosts=3)
    assert credits.count == 3 * SLOTS_PER_HOST
    for host in "abc":
        credits.responded(host, callers=1, now=0.0)
    assert credits.count == 3 * SLOTS_PER_HOST


def test_a_silent_gateway_leaves_its_share() -> None:
    callers = Callers()
    assert callers.called("one", 0.0) == 1
    assert callers.called("two", 0.1) == 2
    assert callers.called("two", 0.2 + ACTIVE_SECONDS) == 1


def test_a_host_that_is_gone_is_not_counted_on() -> None:
    credits = Credits(hosts=2)
    credits.responded("a", 1, 0.0)
    assert credits.responded("b", 1, 0.0) == 2 * SLOTS_PER_HOST
    assert credits.responded("a", 1, FORGET_SECONDS + 1) == SLOTS_PER_HOST


@given(st.integers(1, 6), st.integers(1, 8))
def test_shares_are_equal_and_fit_the_hosts(gateways: int, hosts: int) -> None:
    """However many gateways share the hosts, no host gets more than it has slots for, but for one batch each as the least."""
    at_hosts = [Callers() for _ in range(hosts)]
    counts = [Credits(hosts) for _ in range(gateways)]
    for _ in range(2):
        for gateway, credits in enumerate(counts):
            for host, callers in enumerate(at_hosts):
                credits.responded(host, callers.called(gateway, 0.0), 0.0)
    assert len({credits.count for credits in counts}) == 1
    assert sum(credits.count for credits in counts) <= max(SLOTS_PER_HOST * hosts, gateways)
