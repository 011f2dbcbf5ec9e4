"""The best classes of an answer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.api.classification import best_classes
from serve.api.classify_params import ClassifyParams
from serve.batching.results import Answer, BatchRun


@given(st.integers(1, 12), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_the_best_classes_above_the_threshold_are_returned_in_order(top_k: int, threshold: float, seed: int) -> None:
    logits = np.random.default_rng(seed).normal(0, 3, (6, 10)).astype(np.float32)
    run = BatchRun(logits, 6, 0.0, 1.0)
    rows = best_classes([Answer(run, 1, 3), Answer(run, 4, 6)], ClassifyParams(top_k=top_k, threshold=threshold))
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert len(rows) == 4
    for (classes, probabilities), row in zip(rows, expected[[1, 2, 4, 5]], strict=True):
        assert len(classes) == len(probabilities) <= top_k
        assert probabilities == sorted(probabilities, reverse=True)
        assert all(probability >= threshold for probability in probabilities)
        assert probabilities == pytest.approx(row[classes].tolist(), abs=1e-5)
        certain = min(top_k, int((row > threshold + 1e-5).sum()))
        assert len(classes) >= certain
