"""Sequential test for a sample-ratio mismatch (SRM): do the arms get their declared shares?

The Bayes factor of a Dirichlet mixture against the declared shares is a martingale under them (Lindon and Malek 2022);
units that arrive in different stages of a ramp have different shares, and the factors of the stages multiply.
"""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln, xlogy

from serve.experiments.stats.mixture import Array

CONCENTRATION = 100.0  # sensitive to mismatches of a few percentage points


def log_factor(counts: Array, shares: Array) -> Array:
    """Logarithm of the Bayes factor of one stage. `counts` [..., arms]; `shares` [..., arms] sum to 1."""
    prior = CONCENTRATION * shares
    wanted = shares > 0
    terms = np.where(wanted, gammaln(np.where(wanted, prior + counts, 1)) - gammaln(np.where(wanted, prior, 1)), 0.0)
    total = counts.sum(axis=-1)
    mixed = terms.sum(axis=-1) - gammaln(CONCENTRATION + total) + gammaln(CONCENTRATION)
    impossible = (np.where(wanted, 0, counts) > 0).any(axis=-1)
    expected = np.where(wanted, xlogy(counts, np.where(wanted, shares, 1)), 0.0).sum(axis=-1)
    return np.where(impossible, np.inf, mixed - expected)


def mismatch_p_value(stages: list[tuple[Array, Array]]) -> float:
    """Always-valid p-value that all stages, as (counts, shares), were split by their shares."""
    total = sum(float(log_factor(counts, shares)) for counts, shares in stages)
    return float(min(1.0, np.exp(-min(total, 700.0))))
