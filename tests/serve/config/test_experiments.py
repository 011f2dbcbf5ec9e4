"""The configuration of experiments: refused definitions, the ledger's default, and shares of the arms."""

from __future__ import annotations

from typing import Any

import pytest

from convoy.errors import ConfigError
from serve.config.loading import parse_settings

ARMS = [{"name": "a", "model": "lenet5-mnist"}, {"name": "b", "model": "lenet5-mnist"}]
THIRD = {"name": "c", "model": "lenet5-mnist"}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"arms": ARMS[:1]}, "at least 2"),
        ({"arms": [ARMS[0], ARMS[0]]}, "arms named twice"),
        ({"arms": [ARMS[0] | {"weight": 0.5}, ARMS[1]]}, "sum to 1"),
        ({"arms": [ARMS[0] | {"weight": 0.7}, ARMS[1] | {"weight": 0.7}]}, "sum to 1, not to 1.4"),
        ({"mode": "canary", "arms": [*ARMS, THIRD]}, "a canary needs two arms"),
        ({"mode": "canary", "arms": [ARMS[0] | {"weight": 0.5}, ARMS[1] | {"weight": 0.5}]}, "ramp sets the shares"),
        ({"mode": "canary", "ramp": [50, 5]}, "ascending"),
        ({"mode": "paired", "metric": "reward"}, "cannot compare rewards"),
        ({"effect": 3}, "less than 1, not 3"),
        ({"sticky": "cookie:x"}, "sticky"),
        ({"arms": [ARMS[0], {"name": "b", "model": "lenet5-minst"}]}, "did you mean 'lenet5-mnist'"),
        ({"name": "lenet5-mnist"}, "named twice"),
        ({"effekt": 0.1}, "did you mean 'effect'"),
        ({"alpha": 0.9}, "alpha"),
    ],
)
def test_an_invalid_experiment_is_refused_with_the_reason(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        parse_settings({"experiments": [{"name": "nets", "arms": ARMS} | changes]})


def test_two_experiments_with_the_same_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="named twice"):
        parse_settings({"experiments": [{"name": "nets", "arms": ARMS}] * 2})


def test_a_ledger_is_used_only_with_experiments_or_a_configured_url() -> None:
    assert parse_settings({}).ledger_url == ""
    assert parse_settings({"experiments": [{"name": "nets", "arms": ARMS}]}).ledger_url.startswith("sqlite:///")
    assert parse_settings({"ledger": {"url": "sqlite:///x.db"}}).ledger_url == "sqlite:///x.db"


@pytest.mark.parametrize(
    ("changes", "shares"),
    [
        ({}, {"a": 0.5, "b": 0.5}),
        ({"mode": "canary", "ramp": [5, 100]}, {"a": 0.95, "b": 0.05}),
        ({"mode": "shadow"}, {"a": 1.0, "b": 0.0}),
        ({"mode": "paired"}, {"a": 1.0, "b": 0.0}),
    ],
)
def test_the_first_shares_depend_on_the_mode(changes: dict[str, Any], shares: dict[str, float]) -> None:
    (definition,) = parse_settings({"experiments": [{"name": "nets", "arms": ARMS} | changes]}).experiments
    assert definition.weights() == pytest.approx(shares)
