"""Changes experiments: guardrails, ramps, bandits and users' commands. Uses the ledger, never the request path."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import orjson

from convoy.errors import ConvoyError, InvalidInput, NotFound, NotReady
from serve.config.experiments import Experiment
from serve.experiments.analysis import ALARM_ALPHA, Analysis, Source
from serve.experiments.ledger.queries import unmatched
from serve.experiments.ledger.records import Decision
from serve.experiments.ledger.store import Ledger
from serve.experiments.report import Bounds, HistoryPoint, Report, recommend, samples_to_conclusion
from serve.experiments.revision import Revision, first_revision
from serve.experiments.stats.multiple import bonferroni

TRIES = 5
HISTORY_POINTS = 12  # of a report, for each arm
UNMATCHED_AFTER_SECONDS = 60.0  # predictions are in the ledger much earlier
LEAST_SHARE = 0.02  # of each arm of a bandit, so that a bad start can be corrected
DRAWS = 20_000

log = logging.getLogger("convoy.experiments")

Notify = Callable[[Experiment, Decision], None]
Change = Callable[[Revision], Revision]


class ExperimentController:
    """Changes experiments while they run. A cluster runs one; with several, changes would still be consistent."""

    def __init__(
        self,
        ledger: Ledger,
        source: Source,
        notify: Notify = lambda definition, decision: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`source` returns the source of energy prices; `notify` is called after each change; `clock`: Unix seconds."""
        self._ledger = ledger
        self._source = source
        self._notify = notify
        self._clock = clock
        self._random = np.random.default_rng()

    def start(self, definition: Experiment) -> Revision:
        """Starts an experiment with all its arms, as a new revision unless this definition already runs."""
        present = self._ledger.current().get(definition.name)
        same = present is not None and present.state == "running" and present.definition == definition
        if present is not None and same and not present.stopped and not present.held:
            return present
        return self._change_for_user(definition.name, "start", "", lambda now: now.restarted(definition), definition)

    def ramp(self, name: str, percent: float | None) -> Revision:
        """Moves a canary to its next step, or to the step with that percentage. Raises InvalidInput when there is none."""
        now = self._find(name)
        steps = now.definition.ramp
        if percent is not None and percent not in steps:
            raise InvalidInput(
                f"{percent:g} is no step of {name}; its ramp is {', '.join(f'{step:g}' for step in steps)}"
            )
        step = now.step + 1 if percent is None else steps.index(percent)
        arm = now.definition.arms[1].name
        return self._change_for_user(name, "ramp", arm, lambda now: now.ramped(step))

    def stop(self, name: str, arm: str = "") -> Revision:
        """Stops one arm; without an arm, or with the control, ends the experiment, and the control answers all requests."""
        control = self._find(name).definition.control.name
        if arm and arm != control:
            return self._change_for_user(name, "stop", arm, lambda now: now.without(arm))
        return self._change_for_user(name, "stop", control, lambda now: now.ended(control, "stopped"))

    def promote(self, name: str, arm: str) -> Revision:
        """Ends the experiment: one arm then answers all requests."""
        return self._change_for_user(name, "promote", arm, lambda now: now.ended(arm, "promoted"))

    def tick(self) -> None:
        """One round over all running experiments: guardrails first.

        A decision applies to the revision that it was made for. If a user or another controller has changed the experiment
        meanwhile, the decision is dropped, and the next round decides again.
        """
        for name, revision in self._ledger.current().items():
            if revision.state != "running":
                continue
            try:
                if not self._enforce_guardrails(revision):
                    self._advance_ramp(revision)
                    self._reweight_bandit(revision)
            except ConvoyError:  # an error in one experiment must not stop the guardrails of the others
                log.exception("experiment %s was skipped in this round", name)

    def splits(self) -> dict[tuple[str, int], float]:
        """The p-value of the sample-ratio test (SRM) by running experiment and revision."""
        p_values = {}
        for name, revision in self._ledger.current().items():
            if revision.state != "running":
                continue
            p_value = self._srm_p_value(Analysis.of(self._ledger, revision, self._source), revision)
            if p_value is not None:
                p_values[name, revision.revision] = p_value
        return p_values

    def _srm_p_value(self, analysis: Analysis, revision: Revision) -> float | None:
        return analysis.sample_ratio_p_value(self._ledger.shares(revision.definition.name, revision.revision))

    def report(self, name: str) -> Report:
        """The report of an experiment's present revision. Raises NotFound."""
        revision = self._find(name)
        definition = revision.definition
        analysis = Analysis.of(self._ledger, revision, self._source)
        history = self._history(analysis, revision)
        comparisons = [
            replace(comparison, settled_after=samples_to_conclusion(comparison, history))
            for comparison in analysis.comparisons()
        ]
        arms = analysis.arms()
        alarms = self._alarms(analysis, revision)
        for comparison in comparisons:
            if (
                comparison.verdict == "worse"
            ):  # the ramp must follow a published report, even if the next analysis is less certain
                self._hold_ramp(revision, comparison.arm, comparison.difference)
        return Report(
            experiment=name,
            revision=revision.revision,
            stage=revision.stage,
            state=revision.state,
            mode=definition.mode,
            metric=definition.metric,
            effect=definition.effect,
            alpha=definition.alpha,
            sticky=definition.sticky,
            sentence=recommend(definition, arms, comparisons, alarms),
            arms=arms,
            comparisons=comparisons,
            classes=analysis.classes(),
            history=history,
            alarms=alarms,
            notes=self._notes(self._find(name)),
            decisions=[decision._asdict() for decision in analysis.tables.decisions()],
        )

    def _alarms(self, analysis: Analysis, revision: Revision) -> list[str]:
        definition = revision.definition
        alarms = []
        p_value = self._srm_p_value(analysis, revision)
        if p_value is not None and p_value < ALARM_ALPHA:
            alarms.append(f"units are not split by the declared weights (sample-ratio mismatch, p = {p_value:.1g})")
        late = analysis.late_labels(self._clock() - definition.label_seconds)
        control = definition.control.name
        return alarms + [f"labels of {arm} arrive at another rate than those of {control}" for arm in late]

    def _notes(self, revision: Revision) -> list[str]:
        notes = [
            "Arms on the same cores slow each other down: latency includes waiting for the other arms; engine time per image"
            " does not, but caches and clock are shared."
        ]
        if revision.stopped:
            notes.append(f"Stopped until the experiment is started again: {', '.join(sorted(revision.stopped))}.")
        if revision.held:
            notes.append(f"The ramp waits for `convoy experiment ramp`: {', '.join(sorted(revision.held))} was worse.")
        if revision.definition.mode == "bandit":
            notes.append(
                "A bandit's samples depend on earlier outcomes: there are confidence sequences, but no p-values."
            )
        count, ids = unmatched(self._ledger, self._clock() - UNMATCHED_AFTER_SECONDS, most=5)
        if count:
            notes.append(f"{count} outcomes of all experiments have no prediction, among them {', '.join(ids)}.")
        return notes

    def _history(self, analysis: Analysis, revision: Revision) -> list[HistoryPoint]:
        span = analysis.tables.span()
        if span is None:
            return []
        points = []
        # More points at the start, where the difference changes most.
        early = np.linspace(0, 1, HISTORY_POINTS + 1)[1:] ** 2
        for at in span[0] + early * (span[1] + 1e-6 - span[0]):
            then = Analysis.of(self._ledger, revision, self._source, until=float(at))
            arms = [arm.name for arm in revision.definition.arms[1:]]
            points += [HistoryPoint(float(at), arm, *then.difference(arm)) for arm in arms]
        return points

    def _enforce_guardrails(self, revision: Revision) -> bool:
        """Stops the first arm whose bounds break a guardrail. Returns whether there was one."""
        definition = revision.definition
        limits = {key: limit for key, limit in definition.guardrails.model_dump().items() if limit is not None}
        if not limits:
            return False
        analysis = Analysis.of(self._ledger, revision, self._source)
        others = [arm.name for arm in definition.arms[1:]]
        level = bonferroni(definition.alpha, len(limits) * len(others))
        for arm in others:
            if not self._takes_part(revision, arm):
                continue
            bounds = analysis.guardrail_bounds(arm, level)
            broken = [key for key, limit in limits.items() if key in bounds and bounds[key].low > limit]
            if broken:
                self._roll_back(revision, arm, broken[0], limits[broken[0]], bounds[broken[0]])
                return True
        return False

    def _takes_part(self, revision: Revision, arm: str) -> bool:
        copied = revision.definition.paired and arm in revision.active
        return copied or revision.allocation.shares.get(arm, 0) > 0

    def _roll_back(self, revision: Revision, arm: str, guardrail: str, limit: float, bounds: Bounds) -> None:
        reason = f"{guardrail} of {arm} is above {limit:g}: at least {bounds.low:.4g}"
        evidence = {"guardrail": guardrail, "limit": limit} | asdict(bounds)
        self._decide(revision.without(arm), "rollback", arm, reason, evidence)

    def _advance_ramp(self, revision: Revision) -> None:
        """Moves a canary to its next step after its time and samples, when it is not worse and there is no alarm."""
        definition, arm = revision.definition, revision.definition.arms[1].name
        if not revision.ramps:
            return
        analysis = Analysis.of(self._ledger, revision, self._source)
        if analysis.verdict(arm) == "worse":
            self._hold_ramp(revision, arm, analysis.difference(arm)[1])
            return
        waited = self._clock() - self._ledger.changed_at(revision)
        answers = analysis.tables.stage_answers(revision.stage, arm)
        enough = waited >= definition.stage_seconds and answers >= definition.stage_samples
        if enough and not self._alarms(analysis, revision):
            evidence = {"seconds": round(waited, 1), "answers": answers}
            reason = f"no guardrail was broken in {waited:.0f} s and {answers} answers, and {arm} is not worse"
            self._decide(revision.ramped(revision.step + 1), "ramp", arm, reason, evidence)

    def _hold_ramp(self, revision: Revision, arm: str, difference: Bounds) -> None:
        """Holds a ramp until a user continues it."""
        if revision.ramps:
            reason = f"{arm} is worse than the control: the ramp waits for `convoy experiment ramp`"
            self._decide(revision.holding(arm), "hold", arm, reason, asdict(difference))

    def _reweight_bandit(self, revision: Revision) -> None:
        """Thompson sampling: each arm's share is the probability that it is the best one, at least LEAST_SHARE.

        An arm that is worse keeps LEAST_SHARE. During an alarm nothing changes.
        """
        if revision.definition.mode != "bandit":
            return
        analysis, arms = Analysis.of(self._ledger, revision, self._source), revision.active
        beliefs = {arm: analysis.belief(arm) for arm in arms}
        draws = np.stack([self._posterior(*beliefs[arm]) for arm in arms])
        best = np.bincount(draws.argmax(axis=0), minlength=len(arms)) / DRAWS
        shares = np.round(LEAST_SHARE + best * (1 - LEAST_SHARE * len(arms)), 3)
        weights = {arm: float(share) for arm, share in zip(arms, shares, strict=True)}
        for arm in arms[1:]:
            if analysis.verdict(arm) == "worse":
                weights[arm] = LEAST_SHARE
        weights[arms[0]] += 1 - sum(weights.values())
        present = revision.allocation.shares
        moved = max(abs(weights[arm] - present.get(arm, 0.0)) for arm in weights) > LEAST_SHARE
        if moved and not self._alarms(analysis, revision):
            evidence = {"samples": {arm: round(samples, 1) for arm, (_, samples) in beliefs.items()}, "shares": weights}
            self._decide(revision.reweighted(weights), "explore", "", "Thompson sampling", evidence)

    def _posterior(self, mean: float, samples: float) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Draws [DRAWS] of an arm's mean: Beta(1, 1) before the first sample; rewards are assumed to be in [0, 1]."""
        successes = min(1.0, max(0.0, mean)) * samples
        return self._random.beta(1 + successes, 1 + samples - successes, DRAWS)

    def _find(self, name: str) -> Revision:
        current = self._ledger.current()
        if name not in current:
            known = ", ".join(sorted(current)) or "none"
            raise NotFound(f"unknown experiment {name[:60]!r}; experiments here: {known}")
        return current[name]

    def _change_for_user(
        self, name: str, action: str, arm: str, change: Change, new: Experiment | None = None
    ) -> Revision:
        """Stores a user's change of the present revision; retries if another change was stored first."""
        for _ in range(TRIES):
            present = self._ledger.current().get(name)
            try:
                following = first_revision(new) if present is None and new is not None else change(self._find(name))
            except ValueError as error:
                raise InvalidInput(str(error)) from error
            if self._store(following, action, arm, "user", "asked", {}):
                return following
        raise NotReady(f"{name} is being changed by others; retry")

    def _decide(self, following: Revision, action: str, arm: str, reason: str, evidence: Mapping[str, Any]) -> None:
        """Stores a decision of the controller, unless the experiment was changed after the revision was read."""
        if not self._store(following, action, arm, "referee", reason, evidence):
            log.info("%s was changed by others: the decision %s is dropped", following.definition.name, action)

    def _store(
        self, following: Revision, action: str, arm: str, actor: str, reason: str, evidence: Mapping[str, Any]
    ) -> bool:
        name, text = following.definition.name, orjson.dumps(evidence, default=str).decode()
        decision = Decision(
            secrets.token_hex(16), name, following.revision, self._clock(), action, arm, actor, reason, text
        )
        if not self._ledger.change(following, decision):
            return False
        log.warning("%s: %s %s (%s)", name, action, arm, reason)
        self._notify(following.definition, decision)
        return True
