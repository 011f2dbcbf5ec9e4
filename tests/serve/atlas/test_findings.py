from __future__ import annotations

import pytest

from serve.atlas.findings import Finding, findings, operations_line
from serve.energy.source import Method
from tests.serve.atlas.atlases import atlas_of, cell, network

GIGA = 10**9
OPERATIONS = (1, 2, 4, 8, 16, 32)


def measured(watts: float | None = 12.0, method: Method = "measured", curved: bool = True) -> list[Finding]:
    """Six networks whose time is their operations and whose accuracy is hyperbolic, or straight, in time."""
    networks = [
        network(f"n{giga}", giga * GIGA, 0.8 - 0.2 / giga if curved else 0.5 + 0.01 * giga) for giga in OPERATIONS
    ]
    cells = [cell(one, batch, one.macs / GIGA / 50, watts, method) for one in networks for batch in (1, 16)]
    return findings(atlas_of(networks, cells))


def test_all_four_hold_where_the_machine_is_as_the_paper_says() -> None:
    assert [one.verdict for one in measured()] == ["holds"] * 4


@pytest.mark.parametrize(("watts", "why"), [(None, "no power counter"), (12.0, "modelled")])
def test_power_is_tested_only_where_it_was_measured(watts: float | None, why: str) -> None:
    power, hyperbola, energy, operations = measured(watts, method="modelled")
    for one in (power, energy):
        assert one.verdict == "not testable on this machine"
        assert why in one.evidence
    assert hyperbola.verdict == operations.verdict == "holds"


def test_a_straight_relation_is_no_hyperbola() -> None:
    assert measured(curved=False)[1].verdict == "does not hold"


def test_power_that_differs_by_network_is_told() -> None:
    networks = [network(f"n{giga}", giga * GIGA, 0.7) for giga in OPERATIONS]
    cells = [cell(one, 1, 0.1, watts=float(place + 1)) for place, one in enumerate(networks)]
    assert findings(atlas_of(networks, cells))[0].verdict == "does not hold"


def test_time_that_does_not_follow_operations_is_told() -> None:
    networks = [network(f"n{giga}", giga * GIGA, 0.7) for giga in OPERATIONS]
    cells = [cell(one, 1, seconds) for one, seconds in zip(networks, (5, 1, 4, 2, 6, 1), strict=True)]
    assert findings(atlas_of(networks, cells))[3].verdict == "does not hold"


def test_few_networks_and_small_images_prove_nothing() -> None:
    few = [network(f"n{giga}", giga * GIGA, 0.7) for giga in OPERATIONS[:4]]
    small = [network(f"c{giga}", giga * GIGA, 0.7, "cifar10") for giga in OPERATIONS]
    atlas = atlas_of([*few, *small], [cell(one, 1, 0.1, 12.0) for one in (*few, *small)])
    assert {one.verdict for one in findings(atlas)} == {"not testable on this machine"}


def test_the_line_is_least_squares() -> None:
    networks = [network(f"n{giga}", giga * GIGA, 0.7) for giga in OPERATIONS]
    atlas = atlas_of(networks, [cell(one, 1, 0.01 + 2 * one.macs / GIGA * 0.02) for one in networks])
    line = operations_line(atlas, 1)
    assert line is not None
    assert line.intercept == pytest.approx(0.01)
    assert line.slope * GIGA == pytest.approx(0.02)
    assert line.r2 == pytest.approx(1)
    assert operations_line(atlas, 16) is None
