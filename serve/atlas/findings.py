"""The four findings of Canziani, Paszke, Culurciello, "An Analysis of Deep Neural Network Models for Practical
Applications", arXiv 1605.07678, each tested on an atlas of this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from serve.atlas.data import Atlas, Cell, Network

Verdict = Literal["holds", "does not hold", "not testable on this machine"]
Floats = NDArray[np.float64]

LEAST_NETWORKS = 5
DATASET = "imagenet1k"
SMALL_SPREAD = 0.1  # the paper: 11.8 W with a standard deviation of 0.7 W, 6 %
GOOD_FIT = 0.9


@dataclass(frozen=True)
class Finding:
    """A claim of the paper, the verdict on this machine, and the figures behind it."""

    claim: str
    verdict: Verdict
    evidence: str


@dataclass(frozen=True)
class Line:
    """Least squares y = intercept + slope x, and R², the share of the variance of y that it explains."""

    intercept: float
    slope: float
    r2: float


def findings(atlas: Atlas) -> list[Finding]:
    """The four findings, in the paper's order."""
    return [_power(atlas), _hyperbola(atlas), _energy_bound(atlas), _operations(atlas)]


def fit(x: Floats, y: Floats) -> Line:
    """Least-squares line through x [n] and y [n]; R² is 0 when x or y is constant."""
    across, up = x - x.mean(), y - y.mean()
    spread_x, spread_y, together = float(across @ across), float(up @ up), float(across @ up)
    if not spread_x or not spread_y:
        return Line(float(y.mean()), 0.0, 0.0)
    slope = together / spread_x
    return Line(float(y.mean() - slope * x.mean()), slope, together**2 / (spread_x * spread_y))


def operations_line(atlas: Atlas, batch: int) -> Line | None:
    """Seconds per image over operations at a batch size; None with too few networks."""
    pairs = at_batch(atlas, batch)
    if len(pairs) < LEAST_NETWORKS:
        return None
    return fit(_operation_counts(pairs), np.array([cell.seconds_per_image for _, cell in pairs]))


def at_batch(atlas: Atlas, batch: int, known_accuracy: bool = False) -> list[tuple[Network, Cell]]:
    """Cells at a batch size with their networks: ImageNet networks, in the artifact's own graph."""
    pairs = [(atlas.network(cell.network), cell) for cell in atlas.cells if cell.batch == batch]
    return [
        (network, cell)
        for network, cell in pairs
        if _applies_to(network) and (network.accuracy is not None or not known_accuracy)
    ]


def _applies_to(network: Network) -> bool:
    """Whether the findings apply: the paper compares ImageNet networks in one engine and precision."""
    return network.dataset == DATASET and network.plain


def _operation_counts(pairs: Sequence[tuple[Network, Cell]]) -> Floats:
    return np.array([2.0 * network.macs for network, _ in pairs])


def _power(atlas: Atlas) -> Finding:
    claim = "Power is independent of batch size and architecture."
    cells = [cell for cell in atlas.cells if _applies_to(atlas.network(cell.network))]
    watts = np.array([cell.power.watts - cell.power.idle_watts for cell in cells if _measured(cell) and cell.power])
    if len({cell.network for cell in cells if _measured(cell)}) < LEAST_NETWORKS:
        return Finding(claim, "not testable on this machine", _no_power(cells))
    spread = float(watts.std() / watts.mean())
    evidence = f"{watts.mean():.1f} W above idle, standard deviation {spread:.0%}, over {len(watts)} cells"
    return Finding(claim, "holds" if spread <= SMALL_SPREAD else "does not hold", evidence)


def _hyperbola(atlas: Atlas) -> Finding:
    claim = "Accuracy and inference time are in a hyperbolic relationship: a little accuracy costs a lot of time."
    pairs = at_batch(atlas, 1, known_accuracy=True)
    if len(pairs) < LEAST_NETWORKS:
        return Finding(claim, "not testable on this machine", _too_few(pairs))
    times = np.array([cell.seconds_per_image for _, cell in pairs])
    accuracy = np.array([network.accuracy.top1 for network, _ in pairs if network.accuracy])
    hyperbola, straight = fit(1 / times, accuracy), fit(times, accuracy)
    holds = hyperbola.slope < 0 and hyperbola.r2 > straight.r2
    evidence = (
        f"top-1 = {hyperbola.intercept:.3f} {hyperbola.slope * 1e3:+.2f}/ms explains {hyperbola.r2:.0%} of the variance, "
        f"a straight line {straight.r2:.0%} ({len(pairs)} networks, batch 1)"
    )
    return Finding(claim, "holds" if holds else "does not hold", evidence)


def _energy_bound(atlas: Atlas) -> Finding:
    claim = "A budget of energy is an upper bound on accuracy and on model complexity."
    pairs = [pair for pair in at_batch(atlas, 1, known_accuracy=True) if _measured(pair[1])]
    if len(pairs) < LEAST_NETWORKS:
        return Finding(claim, "not testable on this machine", _no_power([cell for _, cell in at_batch(atlas, 1)]))
    joules = np.array([cell.power.joules_per_image for _, cell in pairs if cell.power])
    line = fit(joules, _operation_counts(pairs))
    order = np.argsort(joules)
    best = np.maximum.accumulate([pairs[index][0].accuracy.top1 for index in order if pairs[index][0].accuracy])
    evidence = (
        f"energy explains {line.r2:.0%} of the variance of operations; the best top-1 rises from {best[0]:.1%} within "
        f"{joules.min():.2g} J to {best[-1]:.1%} within {joules.max():.2g} J"
    )
    return Finding(claim, "holds" if line.r2 >= GOOD_FIT and best[-1] > best[0] else "does not hold", evidence)


def _operations(atlas: Atlas) -> Finding:
    claim = "The number of operations is a reliable estimate of inference time."
    batches = sorted({cell.batch for cell in atlas.cells})
    lines = {batch: line for batch in batches if (line := operations_line(atlas, batch)) is not None}
    if not lines:
        return Finding(claim, "not testable on this machine", _too_few(at_batch(atlas, 1)))
    evidence = "a line through time over operations explains " + ", ".join(
        f"{line.r2:.0%} at batch {batch}" for batch, line in lines.items()
    )
    return Finding(claim, "holds" if min(line.r2 for line in lines.values()) >= GOOD_FIT else "does not hold", evidence)


def _measured(cell: Cell) -> bool:
    return cell.power is not None and cell.power.method == "measured"


def _no_power(cells: Sequence[Cell]) -> str:
    if any(cell.power is not None for cell in cells):
        return "power was modelled here, not measured, and a model cannot test itself"
    return "no power counter may be read on this machine (docs/energy.md)"


def _too_few(pairs: Sequence[tuple[Network, Cell]]) -> str:
    return f"needs measurements of {LEAST_NETWORKS} ImageNet networks; there are {len(pairs)}"
