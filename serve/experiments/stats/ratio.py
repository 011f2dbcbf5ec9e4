"""Sequential alarm for a sample-ratio mismatch: do the arms get the shares they were promised?

The Bayes factor of a Dirichlet mixture against the promised shares is a martingale under them (Lindon and Malek 2022);
units that arrive in different stages of a ramp have different shares, and the factors of the stages multiply.
"""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln, xlogy

from serve.experiments.stats.mixture import Array

CONCENTRATION = 100.0  # the mixture looks for mismatches of some points, not for arms that get nothing


def log_factor(counts: Array, shares: Array) -> Array:
    """Logarithm of the Bayes factor of one stage. `counts` [..., arms]; `shares` [..., arms] sum to 1."""
    prior = CONCENTRATION * shares
    wanted = shares > 0
    terms = np.where(wanted, gammaln(np.where(wanted, prior + counts, 1)) - gammaln(np.where(wanted, prior, 1)), 0.0)
    total = counts.sum(axis=-1)
    mixed = terms.sum(axis=-1) - gammaln(CONCENTRATION + total) + gammaln(CONCENTRATION)
    impossible = (np.where(wanted, 0, counts) > 0).any(axis=-1)
    promised = np.where(wanted, xlogy(counts, np.where(wanted, shares, 1)), 0.0).sum(axis=-1)
    return np.where(impossible, np.inf, mixed - promised)


def mismatch_p_value(stages: list[tuple[Array, Array]]) -> float:
    """Always-valid p-value that every stage, given as (counts, shares), split as promised."""
    total = sum(float(log_factor(counts, shares)) for counts, shares in stages)
    return float(min(1.0, np.exp(-min(total, 700.0))))
