"""Comparisons of two simulated servers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from convoy.errors import ConfigError
from loadtest.plan import SEED, Plan
from loadtest.report.values import Report
from loadtest.search.compare import Side, compare
from tests.loadtest.simulated import plan_at, report_of


class Pair:
    """Two servers on one machine whose speed drifts; B's latency is `ratio` times A's."""

    def __init__(self, ratio: float) -> None:
        self.order: list[str] = []
        self._ratio = ratio
        self._random = np.random.default_rng(1)
        self._drift = 1.0

    def side(self, name: str) -> Side:
        @contextlib.contextmanager
        def up() -> Iterator[None]:
            self.order.append(f"+{name}")
            yield
            self.order.append(f"-{name}")

        return Side(name, plan_at(100), up)

    def measure(self, plan: Plan) -> Report:
        if plan.name.startswith("A"):
            self._drift = float(self._random.lognormal(0, 0.5))
        base = 0.01 * self._drift * (self._ratio if plan.name.startswith("B") else 1.0)
        return report_of(plan, base * self._random.lognormal(0, 0.1, 1000))


def test_slices_alternate_and_each_server_runs_only_in_its_own() -> None:
    pair = Pair(1.0)
    found = compare(pair.side("A"), pair.side("B"), 3, pair.measure)
    assert pair.order == ["+A", "-A", "+B", "-B"] * 3
    assert [report.name for report in found.first] == ["A 1/3", "A 2/3", "A 3/3"]
    seeds = [[report.plan["seed"] for report in side] for side in (found.first, found.second)]
    assert seeds[0] == seeds[1] == [SEED, SEED + 1, SEED + 2]


@pytest.mark.parametrize(
    ("ratio", "finding"), [(1.2, "B is worse"), (0.8, "B is better"), (1.0, "no significant difference")]
)
def test_a_difference_is_found_despite_a_larger_drift(ratio: float, finding: str) -> None:
    pair = Pair(ratio)
    found = compare(pair.side("A"), pair.side("B"), 6, pair.measure)
    p50 = next(entry for entry in found.ratios if entry.metric == "p50")
    assert p50.ratio == pytest.approx(ratio, rel=0.02)
    assert p50.finding.endswith(finding)


def test_two_rounds_have_no_interval() -> None:
    pair = Pair(1.0)
    found = compare(pair.side("A"), pair.side("B"), 2, pair.measure)
    assert all("too few rounds" in entry.finding for entry in found.ratios)


@pytest.mark.parametrize("ended_in", [4, 5])
def test_an_interrupted_comparison_keeps_its_complete_rounds(ended_in: int) -> None:
    pair, seen = Pair(1.0), []

    def measure(plan: Plan) -> Report:
        seen.append(plan.name)
        return replace(pair.measure(plan), stopped=len(seen) == ended_in)

    found = compare(pair.side("A"), pair.side("B"), 6, measure)
    assert found.rounds == len(found.first) == len(found.second) == (ended_in - 1) // 2
    assert len(seen) == ended_in
    assert pair.order[-1].startswith("-")  # its server was stopped
    with pytest.raises(ConfigError, match="before the first round"):
        compare(pair.side("A"), pair.side("B"), 6, lambda plan: replace(pair.measure(plan), stopped=True))


def test_a_comparison_without_rounds_is_refused() -> None:
    pair = Pair(1.0)
    with pytest.raises(ConfigError):
        compare(pair.side("A"), pair.side("B"), 0, pair.measure)
