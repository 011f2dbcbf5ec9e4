"""Every statistic counts units of assignment: requests, or sticky keys, never single images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serve.config.experiments import Arm, Experiment
from serve.experiments.analysis import Analysis
from serve.experiments.controller import ExperimentController
from serve.experiments.ledger.records import Answered, Outcome, Place, Prediction, Unanswered
from serve.experiments.ledger.store import Ledger
from serve.experiments.ledger.writer import LedgerWriter
from serve.experiments.report import ArmReport, Bounds, Report
from serve.experiments.revision import Revision
from tests.serve.experiments.traffic import Traffic

ARMS = (Arm(name="old", model="a"), Arm(name="new", model="b"))
IMAGES, CORRELATION, EQUAL = 16, 0.3, 0.85
EXPERIMENTS, LOOKS, REQUESTS = 40, 3, 120
CHANCE = 5  # binomial limit for 40 experiments at 5 %: exceeded with probability 1.4 %, and the seed is fixed


def define(name: str = "nets", **changes: Any) -> Experiment:
    return Experiment.model_validate({"name": name, "arms": ARMS, "effect": 0.05} | changes)


@pytest.fixture
def file_ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    yield ledger
    ledger.close()


def write_alike(ledger: Ledger, revision: Revision, rng: np.random.Generator, look: int) -> None:
    """Requests of 16 images with correlated outcomes and equal arms; a request has labels for all its images or for none."""
    name, spread = revision.definition.name, (1 - CORRELATION) / CORRELATION
    predictions, outcomes = [], []
    for number in range(REQUESTS):
        request = f"{name}-{look}-{number}"
        arm = revision.allocation.arm(revision.salt, request)
        right = rng.random(IMAGES) < rng.beta(EQUAL * spread, (1 - EQUAL) * spread)
        place = (arm, 1, 0, 0, 1)
        predictions += [Prediction(name, request, at, *place, int(hit), 0.9, 1.0) for at, hit in enumerate(right)]
        if rng.random() < 0.7:
            outcomes += [Outcome(request, at, 1, None, 1.0) for at in range(IMAGES)]
    ledger.write(predictions, outcomes, {}, "writer")


def test_equal_arms_are_rarely_found_different_through_the_ledger(file_ledger: Ledger) -> None:
    rng = np.random.default_rng(1)
    names = [f"nets-{number}" for number in range(EXPERIMENTS)]
    revisions = [file_ledger.declare(define(name, guardrails={"loss": 0.001})) for name in names]
    controller = ExperimentController(file_ledger, lambda: "")
    claimed, alarmed = set(), set()
    for look in range(LOOKS):
        for name, revision in zip(names, revisions, strict=True):
            write_alike(file_ledger, revision, rng, look)
            analysis = Analysis.of(file_ledger, revision, lambda: "")
            (comparison,) = analysis.comparisons()
            assert comparison.p_value is not None
            if comparison.difference.excludes_zero or comparison.p_value < 0.05:
                claimed.add(name)
            if analysis.late_labels(until=2.0):
                alarmed.add(name)
        controller.tick()
    stopped = [name for name, revision in file_ledger.current().items() if revision.state == "stopped"]
    assert len(claimed) <= CHANCE
    assert len(alarmed) <= CHANCE
    assert len(stopped) <= CHANCE


def width(bounds: Bounds) -> float:
    return bounds.high - bounds.low


def figures(arm: ArmReport) -> dict[str, Bounds]:
    energy = {} if arm.energy is None else {"joules": arm.energy.joules_per_image}
    return energy | {"error rate": arm.error_rate, "p50": arm.p50_ms, "p99": arm.p99_ms, "engine": arm.engine_ms}


@pytest.mark.parametrize("mode", ["split", "paired", "bandit"])
def test_copies_of_an_image_in_a_request_are_no_evidence(ledger: Ledger, mode: str) -> None:
    """Requests of one image, and of the image with 15 copies, have the same figures and no narrower interval."""
    reports: list[Report] = []
    controller = ExperimentController(ledger, lambda: "declared")
    for images in (1, IMAGES):
        traffic = Traffic(ledger, {"old": 0.75, "new": 0.9}, seed=5, images=images)
        experiment = define("nets", mode=mode, effect=0.05 + images / 1e6)  # so that it is a new revision
        revision = ledger.declare(experiment)
        traffic.send(revision, 200, labelled=0.8)
        traffic.close()
        reports.append(controller.report("nets"))
        with ledger.engine.begin() as connection:  # the next requests have the same ids
            connection.exec_driver_sql("DELETE FROM predictions")
            connection.exec_driver_sql("DELETE FROM outcomes")
    single, copied = reports
    for first, second in zip(single.comparisons, copied.comparisons, strict=True):
        assert second.samples == IMAGES * first.samples
        assert second.verdict == first.verdict
        assert second.difference.value == pytest.approx(first.difference.value)
        assert 0.95 < width(second.difference) / width(first.difference) < 2
        assert (second.agreement is None) == (first.agreement is None)
        if first.agreement is not None and second.agreement is not None:
            assert width(second.agreement) > 0.95 * width(first.agreement)
    for arm, copied_arm in zip(single.arms, copied.arms, strict=True):
        assert (copied_arm.samples, copied_arm.units) == (IMAGES * arm.samples, arm.units)
        assert width(copied_arm.metric) > 0.95 * width(arm.metric)
        for name, bounds in figures(arm).items():
            assert astuple(figures(copied_arm)[name]) == pytest.approx(astuple(bounds), rel=0.01), name
    for single_class, copied_class in zip(
        sorted(single.classes, key=lambda entry: (entry.class_index, entry.arm)),
        sorted(copied.classes, key=lambda entry: (entry.class_index, entry.arm)),
        strict=True,
    ):
        assert copied_class.accuracy.value == pytest.approx(single_class.accuracy.value)
        assert width(copied_class.accuracy) > 0.95 * width(single_class.accuracy)
    assert single.alarms == copied.alarms


def send_keyed(ledger: Ledger, revision: Revision, repeats: int) -> None:
    """`repeats` equal requests of each of 300 keys, which differ in latency, cost and failures."""
    rng, writer = np.random.default_rng(7), LedgerWriter(ledger, 3600, 1_000_000)
    for unit in range(1, 301):
        place = Place("nets", revision.revision, 0, "new" if unit % 2 else "old")
        failing, seconds = rng.random() < 0.1, float(rng.lognormal(-4, 0.5))
        right = int(rng.random() < 0.8)
        for repeat in range(repeats):
            request = f"{unit}-{repeat}"
            if failing:
                writer.unanswered(Unanswered(place, unit, "failed"))
                continue
            writer.answered(Answered(place, request, unit, True, [(right, 0.9)], seconds, seconds, 10 * seconds, 1.0))
            writer.outcome(Outcome(request, 0, 1, None, 1.0))
    writer.close()


def test_repeated_requests_of_a_key_are_no_evidence(ledger: Ledger) -> None:
    reports = []
    for repeats in (1, 20):
        revision = ledger.declare(define(sticky="header:x-user", effect=0.05 + repeats / 1e6))
        send_keyed(ledger, revision, repeats)
        reports.append(ExperimentController(ledger, lambda: "declared").report("nets"))
        with ledger.engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM predictions")
    once, often = reports
    for arm, repeated in zip(once.arms, often.arms, strict=True):
        assert (repeated.answers, repeated.failures) == (20 * arm.answers, 20 * arm.failures)
        assert repeated.units == arm.units
        for name, bounds in (figures(arm) | {"metric": arm.metric}).items():
            again = figures(repeated).get(name, repeated.metric)
            assert again.value == pytest.approx(bounds.value), name
            assert width(again) >= 0.9 * width(bounds), name
        assert width(repeated.error_rate) < 0.5
        assert width(repeated.engine_ms) < 0.5 * (repeated.engine_ms.value or 0.0)
        assert 0 < repeated.p50_ms.low < (repeated.p50_ms.value or 0.0) < repeated.p50_ms.high < np.inf
    first, second = (report.comparisons[0].difference for report in reports)
    assert astuple(second) == pytest.approx(astuple(first), rel=1e-3)


def test_a_single_key_that_always_fails_does_not_stop_its_arm(ledger: Ledger) -> None:
    """A third of the arm's requests fail, all of them from the same client."""
    revision = ledger.declare(define(sticky="header:x-user", guardrails={"error_rate": 0.1}))
    writer = LedgerWriter(ledger, 3600, 100_000)
    place = Place("nets", 1, 0, "new")
    for number in range(600):
        writer.answered(Answered(place, f"r{number}", 1 + number, True, [(1, 0.9)], 0.01, 0.01, None, 1.0))
    for _ in range(300):
        writer.unanswered(Unanswered(place, 1000, "failed"))
    writer.close()
    ExperimentController(ledger, lambda: "").tick()
    assert ledger.current()["nets"] == revision


def test_many_failing_keys_stop_their_arm(ledger: Ledger) -> None:
    ledger.declare(define(sticky="header:x-user", guardrails={"error_rate": 0.1}))
    writer = LedgerWriter(ledger, 3600, 100_000)
    for number in range(900):
        place, unit = Place("nets", 1, 0, "new"), 1 + number % 300
        if unit % 3:
            writer.answered(Answered(place, f"r{number}", unit, True, [(1, 0.9)], 0.01, 0.01, None, 1.0))
        else:
            writer.unanswered(Unanswered(place, unit, "failed"))
    writer.close()
    ExperimentController(ledger, lambda: "").tick()
    assert ledger.current()["nets"].stopped == {"new"}


def test_a_bandit_counts_requests_not_images(ledger: Ledger) -> None:
    """12 requests of 16 images, right or wrong as a whole, are as much evidence as 12 images."""
    revision = ledger.declare(define(mode="bandit"))
    for number in range(24):
        arm = ("old", "new")[number % 2]
        right = int(number % 4 != 0) if arm == "old" else int(number % 6 != 1)
        images = range(IMAGES)
        place = (arm, 1, 0, 0, 1)
        rows = [Prediction("nets", f"r{number}", at, *place, right, 0.9, 1.0) for at in images]
        ledger.write(rows, [Outcome(f"r{number}", at, 1, None, 1.0) for at in images], {}, "writer")
    analysis = Analysis.of(ledger, revision, lambda: "")
    assert [analysis.belief(arm) for arm in ("old", "new")] == [(0.5, 12.0), (pytest.approx(2 / 3), 12.0)]
    controller = ExperimentController(ledger, lambda: "")
    controller.tick()
    assert ledger.current()["nets"].allocation.shares["old"] > 0.1
