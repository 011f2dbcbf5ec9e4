"""Logits: which rows have a distribution, and the error between two engines."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from models.engines.logits import DOT_VALUES, Logits, all_have_distribution, has_distribution, logit_error
from models.ensembles.combine import log_softmax
from models.ensembles.confidence import entropy, margin

ODD = [np.nan, np.inf, -np.inf, 3e38, -3e38, 0.0, 1.0]
LOGITS = arrays(np.float32, (3, 4), elements=st.sampled_from(ODD) | st.floats(-50, 50, width=32))


@given(LOGITS)
def test_a_row_has_a_distribution_if_its_softmax_sums_to_one(logits: Logits) -> None:
    with np.errstate(all="ignore"):
        sums = np.exp(log_softmax(logits.astype(np.float64))).sum(axis=1)
    assert has_distribution(logits).tolist() == [bool(abs(total - 1) < 1e-6) for total in sums]
    assert all_have_distribution(logits) is bool(has_distribution(logits).all())


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("rows", [1, 2 * DOT_VALUES])
def test_one_invalid_value_among_many_is_found(value: float, rows: int) -> None:
    logits = np.zeros((rows, 3), np.float32)
    logits[-1, 1] = value
    assert not all_have_distribution(logits)
    assert not has_distribution(logits)[-1]


@given(LOGITS, LOGITS)
def test_an_error_is_never_nan_and_finite_only_between_valid_logits(reference: Logits, logits: Logits) -> None:
    error = logit_error(reference, logits)
    assert error >= 0
    assert max(0.0, error) == error
    if not (has_distribution(reference).all() and has_distribution(logits).all()):
        assert error == math.inf


def test_a_class_excluded_by_both_engines_is_no_difference() -> None:
    masked = np.array([[2.0, -np.inf, 1.0]], np.float32)
    assert logit_error(masked, masked) == 0
    assert logit_error(masked, masked + np.float32(0.5)) == 0.25
    assert logit_error(masked, np.array([[2.0, -50.0, 1.0]], np.float32)) == math.inf


def test_an_excluded_class_does_not_change_the_confidence() -> None:
    two, masked = np.array([[2.0, 1.0]]), np.array([[2.0, 1.0, -np.inf]])
    assert entropy(masked) == pytest.approx(entropy(two))
    assert margin(masked) == pytest.approx(margin(two))
