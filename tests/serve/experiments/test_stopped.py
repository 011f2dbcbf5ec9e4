"""A stopped arm gets no traffic until a user starts it again, and a ramp halts when its arm is found worse."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from convoy.errors import ConvoyError, InvalidInput
from serve.config.experiments import Experiment
from serve.experiments.allocation import Allocation
from serve.experiments.controller import LEAST_SHARE, ExperimentController
from serve.experiments.ledger.records import CounterKey, Decision, Moments, Outcome, Prediction
from serve.experiments.ledger.schema import decisions, revisions
from serve.experiments.ledger.store import Ledger
from serve.experiments.revision import Revision, first_revision

ARMS = ("old", "new", "third")
LONG_SECONDS = 10_000.0  # longer than a stage


def define(name: str = "nets", arms: tuple[str, ...] = ARMS, **changes: Any) -> Experiment:
    models = [{"name": arm, "model": arm} for arm in arms]
    return Experiment.model_validate({"name": name, "arms": models, "effect": 0.05} | changes)


def canary(name: str = "nets", **changes: Any) -> Experiment:
    ramp = {"mode": "canary", "ramp": (5, 20, 50, 100), "stage_seconds": 60, "stage_samples": 20}
    return define(name, ("old", "new"), **ramp | changes)


class Clock:
    """A clock that tests advance."""

    def __init__(self) -> None:
        self.now = 2e9

    def __call__(self) -> float:
        return self.now


class Sender:
    """Writes labelled answers at the current stage of an experiment; each arm gets its share."""

    def __init__(self, ledger: Ledger, name: str = "nets") -> None:
        self._ledger, self._name = ledger, name
        self._numbers = itertools.count()

    def send(self, right: dict[str, float], requests: int = 300, labelled: float = 1.0) -> None:
        revision = self._ledger.current()[self._name]
        rows, outcomes = [], []
        counts: dict[str, int] = {}
        for number in itertools.islice(self._numbers, requests):
            arm = revision.allocation.arm(revision.salt, f"{self._name}-{number}")
            counts[arm] = count = counts.get(arm, 0) + 1
            hit = int(int(count * right[arm]) > int((count - 1) * right[arm]))
            identifier = f"{self._name}-{number}"
            rows.append(
                Prediction(self._name, identifier, 0, arm, revision.revision, revision.stage, 0, 1, hit, 0.9, 1.0)
            )
            if number % 100 < 100 * labelled or arm == "old":
                outcomes.append(Outcome(identifier, 0, 1, None, 1.0))
        place = (self._name, revision.revision, revision.stage)
        tallies = {
            CounterKey(*place, arm, "latency", 7, 0): Moments(count, count, 0.0, count) for arm, count in counts.items()
        }
        self._ledger.write(rows, outcomes, tallies, f"writer-{next(self._numbers)}")


class Interrupted(Ledger):
    """A ledger in which another writer makes one change between the read and the write of a change."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.before: Callable[[], object] | None = None

    def change(self, revision: Revision, decision: Decision) -> bool:
        if self.before is not None:
            before, self.before = self.before, None
            before()
        return super().change(revision, decision)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/ledger.db"


@pytest.fixture
def ledger(url: str) -> Iterator[Interrupted]:
    ledger = Interrupted(url)
    yield ledger
    ledger.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def controller(ledger: Ledger, clock: Clock) -> ExperimentController:
    return ExperimentController(ledger, lambda: "", clock=clock)


def share(ledger: Ledger, arm: str, name: str = "nets") -> float:
    return ledger.current()[name].allocation.shares.get(arm, 0.0)


def test_a_bandit_gives_no_share_to_a_stopped_arm(ledger: Ledger, controller: ExperimentController) -> None:
    ledger.declare(define(mode="bandit"))
    controller.stop("nets", "third")
    sender = Sender(ledger)
    for _ in range(4):
        sender.send({"old": 0.6, "new": 0.9, "third": 0.9})
        controller.tick()
        assert share(ledger, "third") == 0
    assert share(ledger, "new") > 0.8
    assert ledger.current()["nets"].state == "running"


def test_a_bandit_step_that_races_with_a_stop_is_dropped(ledger: Interrupted, controller: ExperimentController) -> None:
    ledger.declare(define(mode="bandit"))
    Sender(ledger).send({"old": 0.5, "new": 0.5, "third": 0.95})
    other = ExperimentController(ledger, lambda: "")
    ledger.before = lambda: other.stop("nets", "third")
    controller.tick()
    assert share(ledger, "third") == 0
    controller.tick()
    assert share(ledger, "third") == 0


def test_a_bandit_step_that_races_with_the_end_is_dropped(
    ledger: Interrupted, controller: ExperimentController
) -> None:
    ledger.declare(define(mode="bandit"))
    Sender(ledger).send({"old": 0.5, "new": 0.5, "third": 0.95})
    other = ExperimentController(ledger, lambda: "")
    ledger.before = lambda: other.stop("nets")
    controller.tick()
    assert ledger.current()["nets"].allocation.shares == {"old": 1.0}


def test_a_ramp_step_that_races_with_a_users_step_back_is_dropped(
    ledger: Interrupted, controller: ExperimentController, clock: Clock
) -> None:
    ledger.declare(canary())
    controller.ramp("nets", 50)
    Sender(ledger).send({"old": 0.8, "new": 0.8})
    clock.now += LONG_SECONDS
    other = ExperimentController(ledger, lambda: "")
    ledger.before = lambda: other.ramp("nets", 5)
    controller.tick()
    assert share(ledger, "new") == pytest.approx(0.05)


def test_the_second_of_two_racing_stops_keeps_the_first(ledger: Interrupted, controller: ExperimentController) -> None:
    ledger.declare(define(mode="bandit"))
    other = ExperimentController(ledger, lambda: "")
    ledger.before = lambda: other.stop("nets", "new")
    controller.stop("nets", "third")
    assert ledger.current()["nets"].stopped == {"new", "third"}
    assert ledger.current()["nets"].allocation.shares == {"old": 1.0}


@pytest.mark.parametrize("by", ["user", "guardrail"])
def test_a_stopped_arm_stays_stopped_when_its_declaration_changes(
    ledger: Ledger, controller: ExperimentController, by: str
) -> None:
    limits = {"loss": 0.1}
    ledger.declare(define(guardrails=limits))
    if by == "user":
        controller.stop("nets", "third")
    else:
        Sender(ledger).send({"old": 0.9, "new": 0.9, "third": 0.2}, 600)
        controller.tick()
    assert ledger.current()["nets"].stopped == {"third"}
    for changed in (
        define(guardrails=limits, effect=0.01),
        define(mode="bandit"),
        define(arms=("old", "third", "fourth")),
        define(arms=("third", "old")),
    ):
        following = ledger.declare(changed)
        assert following.allocation.shares.get("third", 0.0) == 0
        assert ledger.declare(changed) == following
    assert (following.state, following.allocation.shares) == ("stopped", {"old": 1.0})


def test_a_stopped_experiment_stays_stopped_until_a_user_starts_it(
    ledger: Ledger, controller: ExperimentController
) -> None:
    ledger.declare(canary())
    controller.stop("nets")
    again = ledger.declare(canary(effect=0.01))
    assert (again.state, again.allocation.shares) == ("stopped", {"old": 1.0})
    with pytest.raises(InvalidInput, match="start it again"):
        controller.ramp("nets", 20)
    started = controller.start(canary(effect=0.01))
    assert (started.state, started.revision, started.stopped) == ("running", 3, frozenset())
    assert started.allocation.shares["new"] == pytest.approx(0.05)


def test_start_brings_back_a_stopped_arm_of_a_running_experiment(
    ledger: Ledger, controller: ExperimentController
) -> None:
    controller.start(define())
    controller.stop("nets", "third")
    started = controller.start(define())
    assert started.allocation.shares["third"] == pytest.approx(1 / 3, abs=1e-5)
    assert controller.start(define()) == started


def test_a_declaration_that_leaves_no_active_arm_changes_nothing(
    ledger: Ledger, controller: ExperimentController
) -> None:
    ledger.declare(define())
    controller.stop("nets")
    stopped = ledger.current()["nets"]
    assert ledger.declare(define(arms=("new", "third"))) == stopped


def test_an_unknown_arm_cannot_be_stopped(ledger: Ledger, controller: ExperimentController) -> None:
    ledger.declare(define())
    with pytest.raises(InvalidInput, match="no arm 'newest'"):
        controller.stop("nets", "newest")


def test_a_ramp_halts_while_its_arm_is_worse(ledger: Ledger, controller: ExperimentController, clock: Clock) -> None:
    ledger.declare(canary(ramp=(50, 70, 100)))
    Sender(ledger).send({"old": 0.95, "new": 0.5}, 600)
    clock.now += LONG_SECONDS
    controller.tick()
    assert share(ledger, "new") == pytest.approx(0.5)
    report = controller.report("nets")
    assert report.comparisons[0].verdict == "worse"
    assert report.sentence.startswith("Keep old")
    assert [(entry["action"], entry["actor"]) for entry in report.decisions] == [("hold", "referee")]
    assert any("waits for `convoy experiment ramp`" in note for note in report.notes)


@pytest.mark.parametrize("found_by", ["report", "tick"])
def test_a_ramp_stays_halted_until_a_user_continues_it(
    ledger: Ledger, controller: ExperimentController, clock: Clock, found_by: str
) -> None:
    """Later labels make the arm look as good as the control, but the first verdict stays valid."""
    ledger.declare(canary(ramp=(50, 70, 100)))
    sender = Sender(ledger)
    sender.send({"old": 0.95, "new": 0.5}, 600)
    if found_by == "report":
        assert controller.report("nets").comparisons[0].verdict == "worse"
    else:
        controller.tick()
    sender.send({"old": 0.8, "new": 0.95}, 6000)
    clock.now += LONG_SECONDS
    assert ExperimentController(ledger, lambda: "").report("nets").comparisons[0].verdict != "worse"
    ExperimentController(ledger, lambda: "", clock=clock).tick()
    assert share(ledger, "new") == pytest.approx(0.5)
    ledger.declare(canary(ramp=(50, 70, 100), effect=0.01))
    assert ledger.current()["nets"].held == {"new"}
    controller.ramp("nets", None)
    assert share(ledger, "new") == pytest.approx(0.7)
    assert ledger.current()["nets"].held == frozenset()


def test_a_ramp_halts_while_the_report_has_an_alarm(
    ledger: Ledger, controller: ExperimentController, clock: Clock
) -> None:
    ledger.declare(canary(ramp=(50, 70, 100)))
    Sender(ledger).send({"old": 0.9, "new": 0.9}, 2000, labelled=0.5)
    clock.now += LONG_SECONDS
    assert controller.report("nets").sentence.startswith("Do not decide")
    controller.tick()
    assert share(ledger, "new") == pytest.approx(0.5)


def test_a_worse_arm_of_a_bandit_keeps_the_least_share(ledger: Ledger, controller: ExperimentController) -> None:
    ledger.declare(define(mode="bandit"))
    sender = Sender(ledger)
    for _ in range(3):
        sender.send({"old": 0.9, "new": 0.9, "third": 0.3}, 500)
        controller.tick()
    report = controller.report("nets")
    assert [comparison.verdict for comparison in report.comparisons if comparison.arm == "third"] == ["worse"]
    assert share(ledger, "third") == pytest.approx(LEAST_SHARE)


def test_a_bandit_keeps_its_shares_while_the_report_has_an_alarm(
    ledger: Ledger, controller: ExperimentController
) -> None:
    revision = ledger.declare(define(mode="bandit", arms=("old", "new")))
    Sender(ledger).send({"old": 0.5, "new": 0.9}, 3000, labelled=0.5)
    assert controller.report("nets").sentence.startswith("Do not decide")
    controller.tick()
    assert ledger.current()["nets"] == revision


def rows_of(ledger: Ledger, name: str) -> list[tuple[int, Allocation, str]]:
    query = select(revisions.c.serial, revisions.c.spans, revisions.c.state).where(revisions.c.experiment == name)
    with ledger.engine.connect() as connection:
        rows = connection.execute(query.order_by(revisions.c.serial)).all()
    return [(serial, Allocation(tuple(map(tuple, orjson.loads(spans)))), state) for serial, spans, state in rows]


def rolled_back(ledger: Ledger, name: str) -> list[str]:
    where = (decisions.c.experiment == name, decisions.c.action == "rollback")
    with ledger.engine.connect() as connection:
        return list(connection.execute(select(decisions.c.arm).where(*where)).scalars())


names = map("nets-{}".format, itertools.count())
arms = st.sampled_from(ARMS)
mistakes = st.sampled_from([0.3, 0.6, 0.9])
events = st.one_of(
    st.tuples(st.just("stop"), arms),
    st.tuples(st.just("promote"), arms),
    st.tuples(st.just("start"), st.sampled_from(["split", "bandit"])),
    st.tuples(st.just("declare"), st.sampled_from(["split", "bandit"])),
    st.tuples(st.just("reorder"), st.permutations(ARMS)),
    st.tuples(st.just("send"), st.tuples(mistakes, mistakes, mistakes)),
    st.tuples(st.just("tick"), st.none()),
    st.tuples(st.just("race"), arms),
    st.tuples(st.just("restart"), st.none()),
)


class Scenario:
    """Applies events to an experiment, and keeps the set of arms that must be stopped."""

    def __init__(self, ledger: Interrupted) -> None:
        self.name, self.ledger = next(names), ledger
        self.controller = ExperimentController(ledger, lambda: "")
        self.sender = Sender(ledger, self.name)
        self.changes = itertools.count(1)
        self.stopped: set[str] = set()
        self.rollbacks = 0
        ledger.declare(self.define("bandit"))

    def define(self, mode: str, arms: tuple[str, ...] = ARMS) -> Experiment:
        effect = 0.05 + next(self.changes) / 1e6
        return define(self.name, arms, mode=mode, effect=effect, guardrails={"loss": 0.2})

    def apply(self, event: str, argument: Any) -> None:
        current = self.ledger.current()[self.name]
        if event in ("stop", "race"):
            other = ExperimentController(self.ledger, lambda: "")
            if event == "race":
                self.ledger.before = lambda: self.stop(other, argument)
                self.controller.tick()
                self.ledger.before = None
            else:
                self.stop(other, argument)
        elif event == "promote":
            self.controller.promote(self.name, argument)
            self.stopped.discard(argument)
        elif event == "start":
            self.stopped.clear()
            self.controller.start(self.define(argument))
        elif event == "declare":
            self.ledger.declare(self.define(argument, tuple(arm.name for arm in current.definition.arms)))
        elif event == "reorder":
            self.ledger.declare(self.define(current.definition.mode, tuple(argument)))
        elif event == "send":
            self.sender.send(dict(zip(ARMS, argument, strict=True)), 120)
        elif event == "tick":
            self.controller.tick()
        else:
            self.controller = ExperimentController(self.ledger, lambda: "")
        self.stopped |= set(rolled_back(self.ledger, self.name)[self.rollbacks :])
        self.rollbacks = len(rolled_back(self.ledger, self.name))

    def stop(self, controller: ExperimentController, arm: str) -> None:
        control = self.ledger.current()[self.name].definition.control.name
        try:
            controller.stop(self.name, arm)
        except ConvoyError:
            return  # the experiment has ended, or no arm would be left
        self.stopped = set(ARMS) - {arm} if arm == control else self.stopped | {arm}


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(events, min_size=3, max_size=12))
def test_a_stopped_arm_has_no_share_after_any_events(
    ledger: Interrupted, events_in_order: list[tuple[str, Any]]
) -> None:
    scenario = Scenario(ledger)
    for event, argument in events_in_order:
        before = rows_of(ledger, scenario.name)[-1][0]
        stopped_before = set(scenario.stopped) if event != "race" else set()
        scenario.apply(event, argument)
        written = rows_of(ledger, scenario.name)
        assert [serial for serial, *_ in written] == list(range(1, len(written) + 1))
        for _, allocation, _ in [row for row in written if row[0] > before]:
            shares = allocation.shares
            assert sum(shares.values()) == pytest.approx(1)
            assert not {arm for arm in stopped_before & scenario.stopped if shares.get(arm, 0) > 0}
        assert not set(written[-1][1].shares) & scenario.stopped
    ExperimentController(ledger, lambda: "").stop(scenario.name)


RAMP = (50, 60, 70, 80, 90, 100)
steps = st.one_of(
    st.tuples(st.just("send"), st.tuples(st.sampled_from([0.6, 0.9]), st.sampled_from([0.6, 0.9]))),
    st.tuples(st.just("tick"), st.none()),
    st.tuples(st.just("report"), st.none()),
    st.tuples(st.sampled_from(["ramp", "declare"]), st.sampled_from(RAMP)),
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(steps, min_size=6, max_size=12))
def test_a_ramp_halts_after_a_worse_verdict_in_any_order_of_events(
    ledger: Ledger, events_in_order: list[tuple[str, Any]]
) -> None:
    name, clock, changes = next(names), Clock(), itertools.count(1)
    controller, sender = ExperimentController(ledger, lambda: "", clock=clock), Sender(ledger, name)
    ledger.declare(canary(name, ramp=RAMP))
    worse = False
    for event, argument in events_in_order:
        before = share(ledger, "new", name)
        clock.now += LONG_SECONDS
        if event == "send":
            sender.send(dict(zip(ARMS, argument, strict=False)), 200)
        elif event == "tick":
            controller.tick()
        elif event == "report":
            worse |= controller.report(name).comparisons[0].verdict == "worse"
        elif event == "declare":
            ledger.declare(canary(name, ramp=RAMP, effect=0.05 + next(changes) / 1e6))
        else:
            controller.ramp(name, argument)
            worse = False
        if worse:
            assert share(ledger, "new", name) <= before + 1e-9
    controller.stop(name)


@given(st.lists(st.sampled_from(ARMS[1:]), max_size=2, unique=True), st.sampled_from(["split", "bandit", "paired"]))
def test_a_revision_lists_its_stopped_and_active_arms(stopped: list[str], mode: str) -> None:
    revision = first_revision(define(mode=mode))
    for arm in stopped:
        if revision.state == "running":
            revision = revision.without(arm)
    assert revision.stopped == frozenset(stopped)
    assert revision.active == tuple(arm for arm in ARMS if arm not in stopped)
    assert (revision.state == "stopped") == (len(stopped) == 2)
    weights = np.array([revision.allocation.shares.get(arm, 0.0) for arm in stopped])
    assert not weights.any()
