"""The findings of Canziani et al. (2016), tested on synthetic atlases."""

from __future__ import annotations

import pytest

from serve.atlas.findings import Finding, findings, operations_line
from serve.energy.source import Method
from tests.serve.atlas.atlases import atlas_of, cell, network

GIGA = 10**9
OPERATIONS = (1, 2, 4, 8, 16, 32)


def measured(watts: float | None = 12.0, method: Method = "measured", curved: bool = True) -> list[Finding]:
    """Findings of six networks whose time is proportional to operations, and whose accuracy is hyperbolic or linear in time."""
    networks = [
        network(f"n{giga}", giga * GIGA, 0.8 - 0.2 / giga if curved else 0.5 + 0.01 * giga) for giga in OPERATIONS
    ]
    cells = [cell(net, batch, net.macs / GIGA / 50, watts, method) for net in networks for batch in (1, 16)]
    return findings(atlas_of(networks, cells))


def test_all_four_findings_hold_for_data_as_in_the_paper() -> None:
    assert [finding.verdict for finding in measured()] == ["holds"] * 4


@pytest.mark.parametrize(("watts", "reason"), [(None, "no power counter"), (12.0, "modelled")])
def test_findings_about_power_need_measured_power(watts: float | None, reason: str) -> None:
    power, hyperbola, energy, operations = measured(watts, method="modelled")
    for finding in (power, energy):
        assert finding.verdict == "not testable on this machine"
        assert reason in finding.evidence
    assert hyperbola.verdict == operations.verdict == "holds"


def test_a_linear_relation_is_not_a_hyperbola() -> None:
    assert measured(curved=False)[1].verdict == "does not hold"


def test_the_finding_of_constant_power_fails_when_power_differs_by_network() -> None:
    networks = [network(f"n{giga}", giga * GIGA, 0.7) for giga in OPERATIONS]
    cells = [cell(net, 1, 0.1, watts=float(place + 1)) for place, net in enumerate(networks)]
    assert findings(atlas_of(networks, cells))[0].verdict == "does not hold"


def test_the_finding_of_linear_time_fails_when_time_does_not_follow_operations() -> None:
    networks = [network(f"n{giga}", giga * GIGA, 0.7) for giga in OPERATIONS]
    cells = [cell(net, 1, seconds) for net, seconds in zip(networks, (5, 1, 4, 2, 6, 1), strict=True)]
    assert findings(atlas_of(networks, cells))[3].verdict == "does not hold"


def test_few_networks_and_small_images_are_not_tested() -> None:
    few = [network(f"n{giga}", giga * GIGA, 0.7) for giga in OPERATIONS[:4]]
    small = [network(f"c{giga}", giga * GIGA, 0.7, "cifar10") for giga in OPERATIONS]
    atlas = atlas_of([*few, *small], [cell(net, 1, 0.1, 12.0) for net in (*few, *small)])
    assert {finding.verdict for finding in findings(atlas)} == {"not testable on this machine"}


def test_the_operations_line_is_a_least_squares_fit() -> None:
    networks = [network(f"n{giga}", giga * GIGA, 0.7) for giga in OPERATIONS]
    atlas = atlas_of(networks, [cell(net, 1, 0.01 + 2 * net.macs / GIGA * 0.02) for net in networks])
    line = operations_line(atlas, 1)
    assert line is not None
    assert line.intercept == pytest.approx(0.01)
    assert line.slope * GIGA == pytest.approx(0.02)
    assert line.r2 == pytest.approx(1)
    assert operations_line(atlas, 16) is None
