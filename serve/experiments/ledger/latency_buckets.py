"""Logarithmic latency buckets, 1 % wide, from 10 µs to 80 minutes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BUCKETS_PER_E = 100
FIRST_SECONDS = 1e-5
LAST_BUCKET = 2000


def latency_buckets(seconds: NDArray[np.float64]) -> NDArray[np.int64]:
    """The bucket of each latency [n]."""
    inside = BUCKETS_PER_E * np.log(np.maximum(seconds, FIRST_SECONDS) / FIRST_SECONDS)
    return np.minimum(LAST_BUCKET, 1 + inside.astype(np.int64))


def latency_edges() -> NDArray[np.float64]:
    """The edges of the buckets in seconds [LAST_BUCKET + 2]."""
    inner = FIRST_SECONDS * np.exp(np.arange(LAST_BUCKET) / BUCKETS_PER_E)
    return np.concatenate([[0.0], inner, [np.inf]])
