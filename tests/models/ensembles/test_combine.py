"""Combining the logits of several voters, and confidence measures, compared with their definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from models.ensembles.combine import Rule, combine
from models.ensembles.confidence import entropy, margin, unsure

RULES: tuple[Rule, ...] = ("mean_logit", "mean_probability", "geometric_mean", "vote")


@st.composite
def votes(draw: st.DrawFn) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    voters, rows, classes = draw(st.integers(1, 5)), draw(st.integers(1, 4)), draw(st.integers(2, 6))
    shape = (voters, rows, classes)
    logits = draw(arrays.arrays(np.float32, shape, elements=st.floats(-20, 20, width=32)))
    weights = draw(arrays.arrays(np.float64, voters, elements=st.floats(0.05, 5)))
    return logits, weights


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """An independent implementation, in double precision."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def offline(logits: NDArray[np.float32], weights: NDArray[np.float64], rule: Rule) -> NDArray[np.float64]:
    """The combined distribution, from the definition."""
    if rule in ("mean_logit", "geometric_mean"):
        return softmax(np.average(logits.astype(np.float64), axis=0, weights=weights))
    return np.asarray(np.average(softmax(logits), axis=0, weights=weights))


@given(votes(), st.sampled_from(["mean_logit", "mean_probability", "geometric_mean"]))
def test_the_combined_distribution_equals_its_definition(
    vote: tuple[NDArray[np.float32], NDArray[np.float64]], rule: Rule
) -> None:
    logits, weights = vote
    scores = combine(logits, weights, rule)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(softmax(scores), offline(logits, weights, rule), atol=1e-5)


@given(votes(), st.sampled_from(RULES), st.randoms())
def test_the_order_of_voters_and_the_scale_of_weights_do_not_matter(
    vote: tuple[NDArray[np.float32], NDArray[np.float64]], rule: Rule, random: Any
) -> None:
    logits, weights = vote
    order = list(range(len(logits)))
    random.shuffle(order)
    combined, permuted = combine(logits, weights, rule), combine(logits[order], weights[order] * 7, rule)
    np.testing.assert_allclose(softmax(combined), softmax(permuted), atol=2e-5)


@given(votes(), st.sampled_from(RULES))
def test_voters_that_agree_change_nothing(vote: tuple[NDArray[np.float32], NDArray[np.float64]], rule: Rule) -> None:
    logits, _ = vote
    same = np.repeat(logits[:1], 3, axis=0)
    combined = softmax(combine(same, np.ones(3), rule))
    if rule == "vote":
        assert (combined.argmax(axis=1) == logits[0].argmax(axis=1)).all()
    else:
        np.testing.assert_allclose(combined, softmax(logits[0]), atol=1e-5)


@given(votes())
def test_a_single_voter_keeps_its_logits(
    vote: tuple[NDArray[np.float32], NDArray[np.float64]],
) -> None:
    logits, weights = vote
    for rule in ("mean_logit", "mean_probability", "geometric_mean"):
        np.testing.assert_array_equal(combine(logits[:1], weights[:1], rule), logits[0])


def test_a_majority_outvotes_a_more_confident_voter() -> None:
    logits = np.array([[[9.0, 0, 0]], [[0, 0.1, 0]], [[0, 0.1, 0]]], np.float32)
    assert combine(logits, np.ones(3), "vote").argmax() == 1
    assert combine(logits, np.ones(3), "mean_probability").argmax() == 0
    assert combine(logits, np.array([3.0, 1, 1]), "vote").argmax() == 0


def test_a_tie_goes_to_the_more_confident_voter() -> None:
    logits = np.array([[[5.0, 0, 0]], [[0, 1.0, 0]]], np.float32)
    assert combine(logits, np.ones(2), "vote").argmax() == 0


def test_confidence_of_known_distributions() -> None:
    scores = np.log(np.array([[0.7, 0.2, 0.1], [1 / 3, 1 / 3, 1 / 3]], np.float32))
    np.testing.assert_allclose(margin(scores), [0.5, 0], atol=1e-6)
    np.testing.assert_allclose(entropy(scores), [0.8018186, np.log(3)], atol=1e-6)
    np.testing.assert_array_equal(unsure(scores, "margin", 0.5001), [True, True])
    np.testing.assert_array_equal(unsure(scores, "margin", 0.4), [False, True])
    np.testing.assert_array_equal(unsure(scores, "entropy", 0.9), [False, True])


@given(votes())
def test_the_most_confident_row_never_reaches_the_next_stage(
    vote: tuple[NDArray[np.float32], NDArray[np.float64]],
) -> None:
    logits, _ = vote
    scores = logits[0]
    for measure, best in (("margin", np.argmax(margin(scores))), ("entropy", np.argmin(entropy(scores)))):
        threshold = float(margin(scores)[best] if measure == "margin" else entropy(scores)[best])
        assert not unsure(scores, measure, threshold)[best]  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", RULES)
def test_scores_are_finite_for_extreme_logits(rule: Rule) -> None:
    logits = np.array([[[300.0, -300]], [[300, -300]]], np.float32)
    assert np.isfinite(combine(logits, np.ones(2), rule)).all()
