"""The experiment controller: reports, guardrails, ramps, bandits and changes by users."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest

from convoy.errors import InvalidInput, NotFound
from serve.config.experiments import Arm, Experiment
from serve.experiments.controller import ExperimentController
from serve.experiments.ledger.records import Decision, Outcome, Prediction
from serve.experiments.ledger.store import Ledger
from serve.experiments.revision import Revision
from tests.conftest import REPOSITORY
from tests.serve.experiments.traffic import Traffic

ARMS = (Arm(name="old", model="a"), Arm(name="new", model="b"))

Send = Callable[..., None]


@pytest.fixture
def recorded() -> list[Decision]:
    return []


@pytest.fixture
def controller(ledger: Ledger, recorded: list[Decision]) -> ExperimentController:
    return ExperimentController(ledger, lambda: "declared", lambda definition, decision: recorded.append(decision))


@pytest.fixture
def traffic(ledger: Ledger) -> Iterator[Traffic]:
    traffic = Traffic(ledger, {"old": 0.80, "new": 0.90, "third": 0.85})
    yield traffic
    traffic.close()


def define(**changes: Any) -> Experiment:
    return Experiment.model_validate({"name": "nets", "arms": ARMS, "effect": 0.05} | changes)


def test_a_better_arm_is_named_with_its_interval(
    ledger: Ledger, controller: ExperimentController, traffic: Traffic
) -> None:
    traffic.send(ledger.declare(define()), 3000)
    traffic.done()
    report = controller.report("nets")
    (comparison,) = report.comparisons
    assert comparison.difference.low <= 0.10 <= comparison.difference.high
    assert report.sentence.startswith("Keep new")
    assert comparison.settled_after in [point.samples for point in report.history]
    assert f"{comparison.settled_after:,} samples settled it" in report.sentence
    old, new = report.arms
    assert new.metric.low <= 0.90 <= new.metric.high
    assert old.samples + new.samples == 3000
    assert new.p50_ms.value == pytest.approx(5, rel=0.1)
    assert new.engine_ms.value == pytest.approx(2.5, rel=0.1)
    assert new.energy is not None
    assert new.energy.joules_per_image.value == pytest.approx(0.05, rel=0.1)
    assert report.alarms == []
    assert [point.samples for point in report.history] == sorted(point.samples for point in report.history)
    assert report.history[-1].samples == 3000


def test_too_few_samples_leave_an_experiment_undecided(
    ledger: Ledger, controller: ExperimentController, traffic: Traffic
) -> None:
    traffic.send(ledger.declare(define()), 100)
    traffic.done()
    report = controller.report("nets")
    assert report.sentence.startswith("Undecided: about")
    assert report.comparisons[0].needed is not None
    assert report.comparisons[0].settled_after is None
    assert 100 <= report.comparisons[0].needed <= 5000


def test_readme_quotes_the_verdict_after_one_label(
    ledger: Ledger, controller: ExperimentController, traffic: Traffic
) -> None:
    traffic.send(ledger.declare(define()), 1)
    traffic.done()
    quoted = re.findall("`(Undecided: [^`]*)`", (REPOSITORY / "README.md").read_text())
    assert quoted == [controller.report("nets").sentence]


def test_an_experiment_without_samples_has_a_report(ledger: Ledger, controller: ExperimentController) -> None:
    ledger.declare(define())
    report = controller.report("nets")
    assert report.sentence.startswith("Undecided")
    assert report.document()["comparisons"][0]["difference"]["low"] is None


@pytest.mark.parametrize("mode", ["paired", "shadow"])
def test_arms_that_classified_the_same_images_are_compared_in_pairs(
    ledger: Ledger, controller: ExperimentController, traffic: Traffic, mode: str
) -> None:
    traffic.send(ledger.declare(define(mode=mode)), 1500)
    traffic.done()
    (comparison,) = controller.report("nets").comparisons
    assert comparison.samples == 1500
    assert comparison.difference.low <= 0.10 <= comparison.difference.high
    assert comparison.difference.low > 0
    assert comparison.p_value is not None
    assert comparison.p_value < 0.05
    assert comparison.agreement is not None
    assert comparison.agreement.value == pytest.approx(0.74, abs=0.05)  # both right, or both wrong in the same way


def test_the_interval_of_sticky_keys_covers_the_difference(
    ledger: Ledger, controller: ExperimentController, traffic: Traffic
) -> None:
    traffic.send(ledger.declare(define(sticky="header:x-user")), 2000, units=40)
    traffic.done()
    keyed = controller.report("nets")
    assert keyed.comparisons[0].difference.low <= 0.10 <= keyed.comparisons[0].difference.high
    assert keyed.alarms == []
    assert sum(arm.samples for arm in keyed.arms) == 2000


def test_a_guardrail_rolls_an_arm_back_and_records_the_evidence(
    ledger: Ledger, controller: ExperimentController, traffic: Traffic, recorded: list[Decision]
) -> None:
    revision = ledger.declare(define(guardrails={"error_rate": 0.05, "p99_ms": 500}))
    traffic.failing["new"] = 0.3
    traffic.send(revision, 400)
    traffic.done()
    controller.tick()
    after = ledger.current()["nets"]
    assert (after.state, after.allocation.shares) == ("stopped", {"old": 1.0})
    (decision,) = recorded
    (reported,) = orjson.loads(orjson.dumps(controller.report("nets").document()))["decisions"]
    assert reported["id"] == decision.id
    assert (decision.action, decision.arm, decision.actor) == ("rollback", "new", "referee")
    assert '"guardrail":"error_rate"' in decision.evidence
    controller.tick()
    assert len(recorded) == 1


@pytest.mark.parametrize(
    ("guardrail", "limit"), [("p99_ms", 8.0), ("joules_per_image", 0.08), ("loss", 0.05), ("error_rate", 0.5)]
)
def test_each_guardrail_stops_an_arm_that_exceeds_it(
    ledger: Ledger, controller: ExperimentController, traffic: Traffic, guardrail: str, limit: float
) -> None:
    worse = (Arm(name="new", model="b"), Arm(name="old", model="a"))
    revision = ledger.declare(define(arms=worse, guardrails={guardrail: limit}))
    traffic.latency["old"] = 0.05 if guardrail != "loss" else 0.005
    traffic.send(revision, 3000)
    traffic.done()
    controller.tick()
    assert ledger.current()["nets"].state == ("running" if guardrail == "error_rate" else "stopped")


def test_a_canary_advances_by_itself_and_its_stages_are_strata(ledger: Ledger, traffic: Traffic) -> None:
    now = [0.0]
    controller = ExperimentController(ledger, lambda: "", clock=lambda: now[0])
    definition = define(mode="canary", ramp=(10, 50, 100), stage_seconds=60, stage_samples=20)
    revision = ledger.declare(definition)
    traffic.send(revision, 400)
    traffic.done()
    now[0] = ledger.changed_at(revision) + 59
    controller.tick()
    assert ledger.current()["nets"] == revision
    now[0] += 2
    controller.tick()
    second = ledger.current()["nets"]
    assert second.allocation.shares["new"] == 0.5
    now[0] += 600
    controller.tick()
    assert ledger.current()["nets"] == second  # no request was answered at this stage yet
    traffic.send(second, 1000)
    traffic.done()
    report = controller.report("nets")
    assert report.alarms == []
    assert report.comparisons[0].difference.low <= 0.10 <= report.comparisons[0].difference.high
    assert [entry["action"] for entry in report.decisions] == ["ramp"]


def test_a_bandit_shifts_traffic_to_the_better_arm_and_reports_no_p_value(
    ledger: Ledger, controller: ExperimentController, traffic: Traffic
) -> None:
    ledger.declare(define(mode="bandit"))
    for _ in range(4):
        traffic.send(ledger.current()["nets"], 400)
        traffic.done()
        controller.tick()
    assert ledger.current()["nets"].allocation.shares["new"] > 0.8
    report = controller.report("nets")
    assert report.comparisons[0].p_value is None
    assert report.comparisons[0].difference.low <= 0.10 <= report.comparisons[0].difference.high


def test_three_arms_share_the_error_probability(
    ledger: Ledger, controller: ExperimentController, traffic: Traffic
) -> None:
    traffic.send(ledger.declare(define(arms=(*ARMS, Arm(name="third", model="c")))), 4000)
    traffic.done()
    report = controller.report("nets")
    assert report.sentence.startswith("Keep new")
    values = [
        (comparison.p_value, comparison.adjusted_p_value)
        for comparison in report.comparisons
        if comparison.p_value is not None
    ]
    smallest, adjusted = min(values)
    assert len(values) == 2
    assert adjusted == pytest.approx(min(1.0, 2 * smallest))


@pytest.mark.parametrize("mode", ["split", "bandit"])
def test_rewards_are_compared_in_their_own_unit(
    ledger: Ledger, controller: ExperimentController, traffic: Traffic, mode: str
) -> None:
    traffic.send(ledger.declare(define(metric="reward", mode=mode)), 4000)
    traffic.done()
    report = controller.report("nets")
    (comparison,) = report.comparisons
    assert comparison.difference.low <= 0.10 <= comparison.difference.high
    assert comparison.difference.low > 0
    assert [arm.metric.value for arm in report.arms] == pytest.approx([0.80, 0.90], abs=0.03)
    assert "Keep new: its reward is 0." in report.sentence
    assert "points" not in report.sentence


def test_a_sample_ratio_mismatch_is_an_alarm(
    ledger: Ledger, controller: ExperimentController, traffic: Traffic
) -> None:
    revision = ledger.declare(define())
    actual = Revision(1, 1, 0, 0, "running", define(), revision.allocation.moved_to({"old": 0.6, "new": 0.4}))
    traffic.send(actual, 3000)
    traffic.done()
    report = controller.report("nets")
    assert "sample-ratio mismatch" in report.alarms[0]
    assert report.sentence.startswith("Do not decide")
    assert controller.splits()["nets", 1] < 0.01
    controller.stop("nets")
    assert controller.splits() == {}


def test_classes_with_the_largest_difference_come_first(ledger: Ledger, controller: ExperimentController) -> None:
    """Both arms are right on class 0, only `old` is right on class 3."""
    ledger.declare(define(mode="paired"))
    for number in range(20):
        for arm, known in (("old", (0, 3)), ("new", (0,))):
            label = 3 * (number % 2)
            guess = label if label in known else 1
            ledger.write([Prediction("nets", f"c{number}", 0, arm, 1, 0, 0, 1, guess, 0.9, 1.0)], [], {}, "writer")
        ledger.write([], [Outcome(f"c{number}", 0, label, None, 1.0)], {}, "writer")
    classes = controller.report("nets").classes
    assert [(row.class_index, row.arm, row.accuracy.value) for row in classes] == [
        (3, "new", 0.0), (3, "old", 1.0), (0, "new", 1.0), (0, "old", 1.0),
    ]  # fmt: skip


def test_different_label_rates_of_the_arms_are_an_alarm(
    ledger: Ledger, controller: ExperimentController, traffic: Traffic
) -> None:
    revision = ledger.declare(define())
    traffic.send(revision.ended("old", "running"), 1000, labelled=0.9)
    traffic.send(revision.ended("new", "running"), 1000, labelled=0.6)
    traffic.done()
    assert any("labels of new arrive at another rate" in alarm for alarm in controller.report("nets").alarms)


def test_a_new_definition_starts_with_empty_statistics(
    ledger: Ledger, controller: ExperimentController, traffic: Traffic
) -> None:
    traffic.send(ledger.declare(define()), 500)
    traffic.done()
    second = ledger.declare(define(effect=0.01))
    assert second.revision == 2
    assert sum(arm.samples for arm in controller.report("nets").arms) == 0


def test_users_start_ramp_promote_and_stop_an_experiment(ledger: Ledger, controller: ExperimentController) -> None:
    controller.start(define(mode="canary", ramp=(10, 100)))
    assert controller.ramp("nets", None).allocation.shares == {"new": 1.0}
    assert controller.ramp("nets", 10).allocation.shares["new"] == pytest.approx(0.1)
    assert controller.promote("nets", "new").state == "promoted"
    with pytest.raises(InvalidInput, match="promoted"):
        controller.ramp("nets", None)
    assert controller.start(define()).state == "running"
    assert controller.stop("nets").allocation.shares == {"old": 1.0}
    with pytest.raises(InvalidInput, match="no arm 'newest'"):
        controller.promote("nets", "newest")
    with pytest.raises(NotFound, match="experiments here: nets"):
        controller.stop("net")


def test_a_label_without_a_prediction_is_reported(
    ledger: Ledger, controller: ExperimentController, traffic: Traffic
) -> None:
    traffic.send(ledger.declare(define()), 10)
    traffic.done()
    ledger.write([], [Outcome("lost-id", 0, 1, None, 1000.0)], {}, "writer")
    assert any("lost-id" in note for note in controller.report("nets").notes)
