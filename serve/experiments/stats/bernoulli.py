"""Exact inference for yes/no outcomes at any sample size: the beta mixture of binomial likelihoods.

With s successes in n samples, M(p) = B(a + s, b + n - s) / (B(a, b) p^s (1 - p)^(n - s)) is a nonnegative martingale under p.
Robbins 1970; Howard et al. 2021; Waudby-Smith and Ramdas 2024. On the discordant pairs of a paired experiment p = 1/2 is
"no arm is better": a sequential McNemar test. On the samples below x, p = level tests whether x is the quantile of that
level: Howard and Ramdas 2022 for one quantile at a time. Of outcomes that are correlated, n is `clusters.effective_samples`.
"""

from __future__ import annotations

import numpy as np
from scipy.special import betaln, xlog1py, xlogy

from serve.experiments.stats.mixture import Array, Interval

BISECTIONS = 50


def log_martingale(successes: Array, samples: Array, p: Array | float, a: float = 0.5, b: float = 0.5) -> Array:
    """Natural logarithm of M(p)."""
    failures = samples - successes
    mixed = betaln(a + successes, b + failures) - betaln(a, b)
    return np.asarray(mixed - xlogy(successes, p) - xlog1py(failures, -np.asarray(p)), np.float64)


def proportion(successes: Array, samples: Array, alpha: float) -> Interval:
    """Confidence sequence of the probability of success."""
    peak = successes / np.where(samples > 0, samples, 1)
    limit = np.log(1 / alpha)

    def bound(outside: Array) -> Array:
        inside = peak
        for _ in range(BISECTIONS):
            middle = (inside + outside) / 2
            kept = log_martingale(successes, samples, middle) < limit
            inside, outside = np.where(kept, middle, inside), np.where(kept, outside, middle)
        return outside

    empty = samples == 0
    low, high = bound(np.zeros_like(peak)), bound(np.ones_like(peak))
    return Interval(np.where(empty, 0.0, low), np.where(empty, 1.0, high))


def discordant_p_value(first_only: Array, second_only: Array) -> Array:
    """Always-valid p-value that both arms are right equally often, from the pairs of which only one was right.

    The mixture is Beta(1, 1), a uniform prior.
    """
    pairs = first_only + second_only
    return np.minimum(1.0, np.exp(-log_martingale(first_only, pairs, 0.5, 1.0, 1.0)))


def quantile(edges: Array, below: Array, samples: Array, level: float, alpha: float) -> tuple[float, float]:
    """Confidence sequence of a quantile: of ascending `edges`, the last one excluded as too low, the first as too high.

    `below`: share of the samples below each edge; `samples`: number of samples behind the share of each edge.
    """
    excluded = log_martingale(below * samples, samples, level) >= np.log(1 / alpha)
    low, high = (edges[excluded & side] for side in (below < level, below > level))
    return float(low[-1]) if len(low) else 0.0, float(high[0]) if len(high) else float("inf")
