"""The accuracy check of built engines and its confidence bound."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.engines.build.accuracy_gate import check_accuracy, images_needed, loss_bound
from models.engines.logits import logit_error
from models.engines.spec import BUDGET

counts = st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(130, 6000))


def test_without_discordant_pairs_the_bound_is_not_zero() -> None:
    """Then it is z² / (n + z²)."""
    for images in (10, 539, 4500):
        assert loss_bound(0, 0, images) == pytest.approx(1.644854**2 / (images + 1.644854**2), rel=1e-5)
    assert loss_bound(0, 0, images_needed(BUDGET)) <= BUDGET < loss_bound(0, 0, images_needed(BUDGET) - 1)


def test_the_bound_equals_a_published_interval() -> None:
    """Tango's interval -0.517 to -0.026 for airway reactivity before and after a transplantation: Fagerland et al. 2014."""
    assert loss_bound(7, 1, 21, 0.975) == pytest.approx(0.517, abs=5e-4)
    assert loss_bound(1, 7, 21, 0.975) == pytest.approx(-0.026, abs=5e-4)


@given(counts)
def test_the_bound_is_above_the_observed_loss(pairs: tuple[int, int, int]) -> None:
    lost, gained, images = pairs
    bound = loss_bound(lost, gained, images)
    assert (lost - gained) / images < bound <= 1


@given(counts)
def test_one_more_loss_raises_the_bound_and_one_more_gain_lowers_it(pairs: tuple[int, int, int]) -> None:
    lost, gained, images = pairs
    assert (
        loss_bound(lost + 1, gained, images) > loss_bound(lost, gained, images) > loss_bound(lost, gained + 1, images)
    )


@pytest.mark.parametrize("discordant", [0.0051, 0.01, 0.04])
def test_an_engine_that_loses_the_budget_is_accepted_at_most_5_percent_of_the_time(discordant: float) -> None:
    """False acceptance stays near 5 %, however rare discordant pairs are."""
    generator = np.random.default_rng(0)
    images, runs = 4500, 2000
    lost = (discordant + BUDGET) / 2
    draws = generator.multinomial(images, [lost, discordant - lost, 1 - discordant], size=runs)
    accepted = sum(loss_bound(int(losses), int(gains), images) <= BUDGET for losses, gains, _ in draws)
    assert accepted / runs < 0.06


def logits_for(classes: list[int]) -> np.ndarray:
    return np.eye(3, dtype=np.float32)[classes]


def test_the_status_follows_from_the_bound_and_the_number_of_images() -> None:
    labels = np.zeros(1000, np.int64)
    correct = logits_for([0] * 1000)
    same = check_accuracy(correct, correct, labels, BUDGET)
    assert (same.status, same.lost, same.gained, same.agreement, same.logit_error) == ("accepted", 0, 0, 1.0, 0.0)
    bad = check_accuracy(correct, logits_for([1] * 20 + [0] * 980), labels, BUDGET)
    assert (bad.status, bad.lost, bad.top1) == ("refused", 20, 0.98)
    few = check_accuracy(correct[:200], correct[:200], labels[:200], BUDGET)
    assert few.status == "unproven"
    assert "539" in few.reason
    assert check_accuracy(correct, correct, None, BUDGET).status == "unproven"
    broken = check_accuracy(correct, np.full_like(correct, np.nan), labels, BUDGET)
    assert (broken.status, broken.logit_error) == ("refused", math.inf)


def test_logit_errors_are_relative_to_the_largest_logit() -> None:
    reference = np.array([[10.0, 0.0]], np.float32)
    assert logit_error(reference, np.array([[9.0, 0.5]], np.float32)) == pytest.approx(0.1)
