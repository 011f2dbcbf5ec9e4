"""Ranking of logits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from serve.batching.top_k import rank


@given(arrays(np.float32, (3, 7), elements=st.floats(-1e4, 1e4, width=32)), st.integers(1, 9))
def test_classes_are_ranked_by_softmax_probability(logits: np.ndarray, top: int) -> None:
    ranking = rank(logits, top)
    for row in range(3):
        exact = np.exp(logits[row].astype(np.float64) - logits[row].max())
        exact /= exact.sum()
        classes, probabilities = ranking.classes[row], ranking.probabilities[row]
        assert len(classes) == min(top, 7)
        assert classes == sorted(range(7), key=lambda index: (-logits[row][index], index))[:top]
        assert probabilities == pytest.approx(exact[classes].tolist(), abs=1e-5)
