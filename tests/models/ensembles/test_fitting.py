"""Fitting temperatures, weights, thresholds and sets, on simulated networks with known properties."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from convoy.errors import ConfigError
from models.ensembles.calibration import calibrate, expected_calibration_error, fit_temperature, negative_log_likelihood
from models.ensembles.combine import combine, log_softmax
from models.ensembles.confidence import unsure
from models.ensembles.suggest import Choice, Option, pareto_front, select_greedily
from models.ensembles.thresholds import Candidate, fit_for_accuracy, fit_for_budget
from models.ensembles.weights import fit_weights

IMAGES, CLASSES = 600, 5


def net(seed: int, skill: float, images: int = IMAGES) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Logits of a network that adds `skill` times the one-hot label to its own noise, and the labels."""
    labels = np.random.default_rng(99).integers(0, CLASSES, images)
    noise = np.random.default_rng(seed).normal(0, 1, (images, CLASSES))
    return (skill * np.eye(CLASSES)[labels] + noise).astype(np.float32), labels


def drawn(temperature: float, images: int = 20_000) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Logits that are calibrated after division by `temperature`, and labels drawn from their distributions."""
    generator = np.random.default_rng(3)
    calibrated = generator.normal(0, 2, (images, CLASSES))
    shares = np.exp(log_softmax(calibrated)).cumsum(axis=1)
    labels = (generator.random((images, 1)) > shares).sum(axis=1).clip(0, CLASSES - 1)
    return (calibrated * temperature).astype(np.float32), labels


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_the_temperature_of_simulated_labels_is_found(temperature: float) -> None:
    logits, labels = drawn(temperature)
    fitted = calibrate(logits, labels)
    assert fitted.temperature == pytest.approx(temperature, rel=0.05)
    assert fitted.ece_after < 0.02
    assert fitted.images == len(labels)
    if temperature != 1.0:
        assert fitted.ece_before > 2 * fitted.ece_after


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.floats(0.2, 4), st.floats(0.1, 10))
def test_no_temperature_beats_the_fitted_one(seed: int, skill: float, other: float) -> None:
    logits, labels = net(seed, skill, 200)
    best = fit_temperature(logits, labels)
    assert negative_log_likelihood(logits / best, labels) <= negative_log_likelihood(logits / other, labels) + 1e-5


def test_the_calibration_error_of_known_cases() -> None:
    confident = np.array([[50.0, 0]] * 4, np.float32)
    assert expected_calibration_error(confident, np.array([0, 0, 0, 0])) == pytest.approx(0, abs=1e-6)
    assert expected_calibration_error(confident, np.array([0, 0, 1, 1])) == pytest.approx(0.5, abs=1e-6)
    with pytest.raises(ValueError, match="needs labelled images"):
        calibrate(confident[:0], np.zeros(0, np.int64))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(0.2, 4), min_size=1, max_size=4), st.randoms())
def test_no_weights_beat_the_fitted_ones(skills: list[float], random: Any) -> None:
    nets = [net(seed, skill, 200) for seed, skill in enumerate(skills)]
    logits, labels = np.stack([scores for scores, _ in nets]), nets[0][1]
    fitted = fit_weights(logits, labels)
    assert fitted.sum() == pytest.approx(1)
    assert (fitted >= 0).all()
    others = np.array([random.random() + 1e-3 for _ in skills])
    assert _loss(logits, labels, fitted) <= _loss(logits, labels, others) + 2e-3


def test_a_network_that_only_guesses_gets_no_weight() -> None:
    good, labels = net(1, 4)
    guesses, _ = net(2, 0)
    assert fit_weights(np.stack([good, guesses * 5]), labels)[1] < 0.02


def _loss(logits: NDArray[np.float32], labels: NDArray[np.int64], weights: NDArray[np.float64]) -> float:
    kept = weights > 0
    return negative_log_likelihood(combine(logits[kept], weights[kept], "mean_probability"), labels)


@pytest.mark.parametrize("measure", ["margin", "entropy"])
@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(0.5, 5), min_size=2, max_size=4), st.floats(0.2, 1))
def test_thresholds_reach_the_predicted_accuracy_and_shares(measure: Any, skills: list[float], wanted: float) -> None:
    stages, labels = cascade(skills)
    fitted = fit_for_accuracy(stages, labels, wanted, measure)
    answers = np.zeros(len(labels), np.int64)
    open_ = np.ones(len(labels), np.bool_)
    for stage, threshold, share in zip(stages, (*fitted.thresholds, None), fitted.shares, strict=True):
        assert open_.mean() == pytest.approx(share, abs=0.01)
        answers[open_] = stage.scores[open_].argmax(axis=1)
        if threshold is not None:
            open_[open_] = unsure(stage.scores[open_], measure, threshold)
    assert (answers == labels).mean() == pytest.approx(fitted.accuracy, abs=0.01)
    best = max(float((stage.scores.argmax(axis=1) == labels).mean()) for stage in stages)
    last = float((stages[-1].scores.argmax(axis=1) == labels).mean())
    assert fitted.accuracy >= min(wanted, last, best) - 1e-9


def test_two_stages_pass_on_as_few_images_as_possible() -> None:
    """Compared with all possible thresholds."""
    stages, labels = cascade([1.5, 4.0])
    fitted = fit_for_accuracy(stages, labels, 0.85)
    first = stages[0].scores
    confidence = np.sort(np.exp(log_softmax(first)), axis=1)
    margins = confidence[:, -1] - confidence[:, -2]
    shares = []
    for threshold in np.concatenate([[0], margins, [1.1]]):
        passed = margins < threshold
        correct = np.where(passed, stages[1].scores.argmax(axis=1) == labels, first.argmax(axis=1) == labels)
        if correct.mean() >= 0.85:
            shares.append(passed.mean())
    assert fitted.shares[1] == pytest.approx(min(shares), abs=1e-9)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.floats(0.5, 5), min_size=2, max_size=3), st.floats(1, 8))
def test_a_budget_is_kept(skills: list[float], budget: float) -> None:
    stages, labels = cascade(skills)
    fitted = fit_for_budget(stages, labels, budget)
    assert fitted.cost <= budget + 1e-9
    assert fitted.accuracy >= float((stages[0].scores.argmax(axis=1) == labels).mean()) - 1e-9


def test_a_budget_below_the_first_stage_is_refused() -> None:
    stages, labels = cascade([1, 2])
    with pytest.raises(ConfigError, match="stage0 alone costs 1"):
        fit_for_budget(stages, labels, 0.5)


def cascade(skills: list[float]) -> tuple[list[Candidate], NDArray[np.int64]]:
    nets = [net(seed, skill) for seed, skill in enumerate(skills)]
    return [Candidate(f"stage{n}", scores, 3.0**n) for n, (scores, _) in enumerate(nets)], nets[0][1]


@settings(deadline=None, max_examples=15)
@given(st.lists(st.tuples(st.floats(0.3, 3), st.floats(0.5, 4)), min_size=1, max_size=5), st.floats(1, 9))
def test_no_evaluated_set_dominates_the_pareto_front(plan: list[tuple[float, float]], budget: float) -> None:
    options, labels = candidates(plan)
    choices = select_greedily(options, labels, budget)
    assert all(choice.cost <= budget + 1e-9 for choice in choices)
    assert len({frozenset(choice.members) for choice in choices}) == len(choices)
    front = pareto_front(choices)
    assert [choice.cost for choice in front] == sorted(choice.cost for choice in front)
    for choice in choices:
        assert any(other.accuracy >= choice.accuracy and other.cost <= choice.cost for other in front)
    affordable = {option.name for option in options if option.cost <= budget}
    assert {choice.members[0] for choice in choices if len(choice.members) == 1} == affordable


def test_the_greedy_search_finds_the_best_pair_of_four() -> None:
    options, labels = candidates([(1.0, 1), (1.2, 1), (1.4, 1), (1.6, 1)])
    found = {frozenset(choice.members): choice.accuracy for choice in select_greedily(options, labels, most=2)}
    every = [
        float((combine(np.stack([a.scores, b.scores]), np.ones(2), "mean_probability").argmax(axis=1) == labels).mean())
        for a, b in combinations(options, 2)
    ]
    assert max(accuracy for members, accuracy in found.items() if len(members) == 2) == pytest.approx(max(every))


def test_dominated_choices_are_not_on_the_pareto_front() -> None:
    cheap, expensive, dominated = Choice(("a",), 0.7, 1), Choice(("a", "b"), 0.8, 3), Choice(("c",), 0.6, 2)
    assert pareto_front([expensive, dominated, cheap]) == [cheap, expensive]


def candidates(plan: list[tuple[float, float]]) -> tuple[list[Option], NDArray[np.int64]]:
    nets = [net(seed, skill) for seed, (skill, _) in enumerate(plan)]
    return [Option(f"net{n}", scores, plan[n][1]) for n, (scores, _) in enumerate(nets)], nets[0][1]
