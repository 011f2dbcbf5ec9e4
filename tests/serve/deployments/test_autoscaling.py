"""The autoscaling policy without Ray; `tests/end_to_end/test_autoscaling.py` tests a real server."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convoy.errors import ConfigError
from serve.config.loading import parse_settings
from serve.deployments.applications import applications
from serve.deployments.autoscaling import BACKLOG, BUSY, TARGET_BUSY, by_load, wanted
from serve.deployments.host_load import STALE_SECONDS, HostLoad


class Clock:
    now = 10.0

    def __call__(self) -> float:
        return self.now


@given(busy=st.floats(0, 50), backlog=st.floats(0, 50))
def test_the_policy_asks_for_the_smallest_sufficient_number_of_hosts(busy: float, backlog: float) -> None:
    hosts = wanted(busy, backlog)
    assert hosts * TARGET_BUSY >= busy + backlog - 1e-6
    assert hosts == 1 or (hosts - 1) * TARGET_BUSY < busy + backlog


@given(hosts=st.integers(1, 20), busy=st.floats(0, 1))
def test_the_number_of_hosts_is_stable(hosts: int, busy: float) -> None:
    """The same work on the number of hosts that the policy asked for leads to the same number."""
    first = wanted(hosts * busy, 0)
    assert wanted(first * (hosts * busy / first), 0) == first


def context(reports: dict[str, dict[str, float]]) -> Any:
    return SimpleNamespace(aggregated_metrics=reports, target_num_replicas=3)


def test_the_number_of_hosts_follows_the_reports() -> None:
    assert by_load(context({}))[0] == 3  # no report yet
    assert by_load(context({BUSY: {"a": 0.1, "b": 0.1}, BACKLOG: {"a": 0.0, "b": 0.0}}))[0] == 1
    assert by_load(context({BUSY: {"a": 1.0, "b": 1.0}, BACKLOG: {"a": 2.0, "b": 2.5}}))[0] == 7


def test_a_host_reports_its_backlog_and_how_busy_it_is() -> None:
    clock = Clock()
    load = HostLoad(clock)
    load.called("one", 0.5)
    load.called("two", 0.25)
    load.called("one", 0.75)
    load.ran(0.5)
    clock.now += 2
    assert (load.busy(), load.backlog()) == (0.25, 1.0)
    clock.now += STALE_SECONDS
    assert (load.busy(), load.backlog()) == (0.0, 0.0)


def test_a_host_is_at_most_fully_busy_when_a_run_began_earlier() -> None:
    clock = Clock()
    load = HostLoad(clock)
    load.ran(9.0)
    clock.now += 1
    assert load.busy() == 1.0


def test_only_models_with_max_replicas_are_scaled() -> None:
    models = [
        {"name": "lenet5-mnist", "placement": "dedicated", "replicas": 2, "max_replicas": 5},
        {"name": "resnet20-cifar10", "placement": "dedicated", "replicas": 2},
    ]
    specs = {spec.name: spec for spec in applications(parse_settings({"models": models}))}
    scaled = specs["host-lenet5-mnist"].options["autoscaling_config"]
    assert (scaled["min_replicas"], scaled["max_replicas"]) == (2, 5)
    assert specs["host-resnet20-cifar10"].options["num_replicas"] == 2
    with pytest.raises(ConfigError, match="max_replicas"):
        parse_settings({"models": [{"name": "a", "replicas": 3, "max_replicas": 2}]})
