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
def heard() -> list[Decision]:
    return []


@pytest.fixture
def referee(ledger: Ledger, heard: list[Decision]) -> ExperimentController:
    return ExperimentController(ledger, lambda: "declared", lambda definition, decision: heard.append(decision))


@pytest.fixture
def traffic(ledger: Ledger) -> Iterator[Traffic]:
    traffic = Traffic(ledger, {"old": 0.80, "new": 0.90, "third": 0.85})
    yield traffic
    traffic.close()


def define(**changes: Any) -> Experiment:
    return Experiment.model_validate({"name": "nets", "arms": ARMS, "effect": 0.05} | changes)


def test_a_better_arm_is_named_with_its_interval(
    ledger: Ledger, referee: ExperimentController, traffic: Traffic
) -> None:
    traffic.send(ledger.declare(define()), 3000)
    traffic.done()
    report = referee.report("nets")
    (comparison,) = report.comparisons
    assert comparison.difference.low <= 0.10 <= comparison.difference.high
    assert report.sentence.startswith("Keep new")
    assert comparison.settled_after in [one.samples for one in report.history]
    assert f"{comparison.settled_after:,} samples settled it" in report.sentence
    old, new = report.arms
    assert new.metric.low <= 0.90 <= new.metric.high
    assert old.samples + new.samples == 3000
    assert new.p50_ms.value == pytest.approx(5, rel=0.1)
    assert new.engine_ms.value == pytest.approx(2.5, rel=0.1)
    assert new.energy is not None
    assert new.energy.joules_per_image.value == pytest.approx(0.05, rel=0.1)
    assert report.alarms == []
    assert [one.samples for one in report.history] == sorted(one.samples for one in report.history)
    assert report.history[-1].samples == 3000


def test_too_few_samples_are_undecided(ledger: Ledger, referee: ExperimentController, traffic: Traffic) -> None:
    traffic.send(ledger.declare(define()), 100)
    traffic.done()
    report = referee.report("nets")
    assert report.sentence.startswith("Undecided: about")
    assert report.comparisons[0].needed is not None
    assert report.comparisons[0].settled_after is None
    assert 100 <= report.comparisons[0].needed <= 5000


def test_readme_quotes_the_verdict_after_one_label(
    ledger: Ledger, referee: ExperimentController, traffic: Traffic
) -> None:
    traffic.send(ledger.declare(define()), 1)
    traffic.done()
    quoted = re.findall("`(Undecided: [^`]*)`", (REPOSITORY / "README.md").read_text())
    assert quoted == [referee.report("nets").sentence]


def test_nothing_known_is_a_report_too(ledger: Ledger, referee: ExperimentController) -> None:
    ledger.declare(define())
    report = referee.report("nets")
    assert report.sentence.startswith("Undecided")
    assert report.document()["comparisons"][0]["difference"]["low"] is None


@pytest.mark.parametrize("mode", ["paired", "shadow"])
def test_arms_that_saw_the_same_images(
    ledger: Ledger, referee: ExperimentController, traffic: Traffic, mode: str
) -> None:
    traffic.send(ledger.declare(define(mode=mode)), 1500)
    traffic.done()
    (comparison,) = referee.report("nets").comparisons
    assert comparison.samples == 1500
    assert comparison.difference.low <= 0.10 <= comparison.difference.high
    assert comparison.difference.low > 0
    assert comparison.p_value is not None
    assert comparison.p_value < 0.05
    assert comparison.agreement is not None
    assert comparison.agreement.value == pytest.approx(0.74, abs=0.05)  # both right, or both wrong in the same way


def test_sticky_keys_widen_the_interval(ledger: Ledger, referee: ExperimentController, traffic: Traffic) -> None:
    traffic.send(ledger.declare(define(sticky="header:x-user")), 2000, units=40)
    traffic.done()
    keyed = referee.report("nets")
    assert keyed.comparisons[0].difference.low <= 0.10 <= keyed.comparisons[0].difference.high
    assert keyed.alarms == []
    assert sum(arm.samples for arm in keyed.arms) == 2000


def test_a_guardrail_rolls_an_arm_back_with_evidence(
    ledger: Ledger, referee: ExperimentController, traffic: Traffic, heard: list[Decision]
) -> None:
    revision = ledger.declare(define(guardrails={"error_rate": 0.05, "p99_ms": 500}))
    traffic.failing["new"] = 0.3
    traffic.send(revision, 400)
    traffic.done()
    referee.tick()
    after = ledger.current()["nets"]
    assert (after.state, after.allocation.shares) == ("stopped", {"old": 1.0})
    (decision,) = heard
    (told,) = orjson.loads(orjson.dumps(referee.report("nets").document()))["decisions"]
    assert told["id"] == decision.id
    assert (decision.action, decision.arm, decision.actor) == ("rollback", "new", "referee")
    assert '"guardrail":"error_rate"' in decision.evidence
    referee.tick()
    assert len(heard) == 1


@pytest.mark.parametrize(
    ("guardrail", "limit"), [("p99_ms", 8.0), ("joules_per_image", 0.08), ("loss", 0.05), ("error_rate", 0.5)]
)
def test_each_guardrail(
    ledger: Ledger, referee: ExperimentController, traffic: Traffic, guardrail: str, limit: float
) -> None:
    worse = (Arm(name="new", model="b"), Arm(name="old", model="a"))
    revision = ledger.declare(define(arms=worse, guardrails={guardrail: limit}))
    traffic.latency["old"] = 0.05 if guardrail != "loss" else 0.005
    traffic.send(revision, 3000)
    traffic.done()
    referee.tick()
    assert ledger.current()["nets"].state == ("running" if guardrail == "error_rate" else "stopped")


def test_a_canary_goes_up_by_itself_and_its_stages_are_strata(ledger: Ledger, traffic: Traffic) -> None:
    now = [0.0]
    referee = ExperimentController(ledger, lambda: "", clock=lambda: now[0])
    definition = define(mode="canary", ramp=(10, 50, 100), stage_seconds=60, stage_samples=20)
    revision = ledger.declare(definition)
    traffic.send(revision, 400)
    traffic.done()
    now[0] = ledger.changed_at(revision) + 59
    referee.tick()
    assert ledger.current()["nets"] == revision
    now[0] += 2
    referee.tick()
    second = ledger.current()["nets"]
    assert second.allocation.shares["new"] == 0.5
    now[0] += 600
    referee.tick()
    assert ledger.current()["nets"] == second  # nothing was answered at this stage yet
    traffic.send(second, 1000)
    traffic.done()
    report = referee.report("nets")
    assert report.alarms == []
    assert report.comparisons[0].difference.low <= 0.10 <= report.comparisons[0].difference.high
    assert [one["action"] for one in report.decisions] == ["ramp"]


def test_a_bandit_moves_to_the_better_arm_and_gives_no_p_value(
    ledger: Ledger, referee: ExperimentController, traffic: Traffic
) -> None:
    ledger.declare(define(mode="bandit"))
    for _ in range(4):
        traffic.send(ledger.current()["nets"], 400)
        traffic.done()
        referee.tick()
    assert ledger.current()["nets"].allocation.shares["new"] > 0.8
    report = referee.report("nets")
    assert report.comparisons[0].p_value is None
    assert report.comparisons[0].difference.low <= 0.10 <= report.comparisons[0].difference.high


def test_three_arms_share_the_error(ledger: Ledger, referee: ExperimentController, traffic: Traffic) -> None:
    traffic.send(ledger.declare(define(arms=(*ARMS, Arm(name="third", model="c")))), 4000)
    traffic.done()
    report = referee.report("nets")
    assert report.sentence.startswith("Keep new")
    values = [(one.p_value, one.adjusted_p_value) for one in report.comparisons if one.p_value is not None]
    smallest, adjusted = min(values)
    assert len(values) == 2
    assert adjusted == pytest.approx(min(1.0, 2 * smallest))


@pytest.mark.parametrize("mode", ["split", "bandit"])
def test_rewards_are_compared_in_their_own_unit(
    ledger: Ledger, referee: ExperimentController, traffic: Traffic, mode: str
) -> None:
    traffic.send(ledger.declare(define(metric="reward", mode=mode)), 4000)
    traffic.done()
    report = referee.report("nets")
    (comparison,) = report.comparisons
    assert comparison.difference.low <= 0.10 <= comparison.difference.high
    assert comparison.difference.low > 0
    assert [arm.metric.value for arm in report.arms] == pytest.approx([0.80, 0.90], abs=0.03)
    assert "Keep new: its reward is 0." in report.sentence
    assert "points" not in report.sentence


def test_a_lost_share_is_an_alarm(ledger: Ledger, referee: ExperimentController, traffic: Traffic) -> None:
    revision = ledger.declare(define())
    liar = Revision(1, 1, 0, 0, "running", define(), revision.allocation.moved_to({"old": 0.6, "new": 0.4}))
    traffic.send(liar, 3000)
    traffic.done()
    report = referee.report("nets")
    assert "sample-ratio mismatch" in report.alarms[0]
    assert report.sentence.startswith("Do not decide")
    assert referee.splits()["nets", 1] < 0.01
    referee.stop("nets")
    assert referee.splits() == {}


def test_classes_on_which_arms_differ_most_come_first(ledger: Ledger, referee: ExperimentController) -> None:
    """Both arms know class 0, only one knows class 3."""
    ledger.declare(define(mode="paired"))
    for number in range(20):
        for arm, known in (("old", (0, 3)), ("new", (0,))):
            label = 3 * (number % 2)
            guess = label if label in known else 1
            ledger.write([Prediction("nets", f"c{number}", 0, arm, 1, 0, 0, 1, guess, 0.9, 1.0)], [], {}, "writer")
        ledger.write([], [Outcome(f"c{number}", 0, label, None, 1.0)], {}, "writer")
    classes = referee.report("nets").classes
    assert [(one.class_index, one.arm, one.accuracy.value) for one in classes] == [
        (3, "new", 0.0), (3, "old", 1.0), (0, "new", 1.0), (0, "old", 1.0),
    ]  # fmt: skip


def test_labels_that_come_late_on_one_arm_are_an_alarm(
    ledger: Ledger, referee: ExperimentController, traffic: Traffic
) -> None:
    revision = ledger.declare(define())
    traffic.send(revision.ended("old", "running"), 1000, labelled=0.9)
    traffic.send(revision.ended("new", "running"), 1000, labelled=0.6)
    traffic.done()
    assert any("labels of new arrive at another rate" in alarm for alarm in referee.report("nets").alarms)


def test_a_new_definition_has_statistics_of_its_own(
    ledger: Ledger, referee: ExperimentController, traffic: Traffic
) -> None:
    traffic.send(ledger.declare(define()), 500)
    traffic.done()
    second = ledger.declare(define(effect=0.01))
    assert second.revision == 2
    assert sum(arm.samples for arm in referee.report("nets").arms) == 0


def test_what_users_ask(ledger: Ledger, referee: ExperimentController) -> None:
    referee.start(define(mode="canary", ramp=(10, 100)))
    assert referee.ramp("nets", None).allocation.shares == {"new": 1.0}
    assert referee.ramp("nets", 10).allocation.shares["new"] == pytest.approx(0.1)
    assert referee.promote("nets", "new").state == "promoted"
    with pytest.raises(InvalidInput, match="promoted"):
        referee.ramp("nets", None)
    assert referee.start(define()).state == "running"
    assert referee.stop("nets").allocation.shares == {"old": 1.0}
    with pytest.raises(InvalidInput, match="no arm 'newest'"):
        referee.promote("nets", "newest")
    with pytest.raises(NotFound, match="experiments here: nets"):
        referee.stop("net")


def test_a_label_without_a_prediction_is_reported_after_its_time(
    ledger: Ledger, referee: ExperimentController, traffic: Traffic
) -> None:
    traffic.send(ledger.declare(define()), 10)
    traffic.done()
    ledger.write([], [Outcome("lost-id", 0, 1, None, 1000.0)], {}, "writer")
    assert any("lost-id" in note for note in referee.report("nets").notes)
