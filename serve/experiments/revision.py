"""The state of an experiment as every gateway follows it: a row of the ledger, replaced by one with a higher serial."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from serve.experiments.allocation import Allocation, allocate
from serve.experiments.definition import Experiment

State = Literal["running", "stopped", "promoted"]


@dataclass(frozen=True)
class Revision:
    """`serial` counts every change; `revision` counts definitions, each with statistics of its own; `stage` counts shares."""

    serial: int
    revision: int
    stage: int
    step: int  # of the ramp
    state: State
    definition: Experiment
    allocation: Allocation
    by_command: bool = False  # and not declared in the configuration, from which it could be removed

    @property
    def salt(self) -> str:
        return self.definition.name

    def ramped(self, step: int) -> Revision:
        """At another step of the ramp. Raises ValueError when there is none or the experiment has ended."""
        self._must_run()
        if self.definition.mode != "canary" or not 0 <= step < len(self.definition.ramp):
            raise ValueError(f"{self.definition.name} has no step {step}; its ramp is {list(self.definition.ramp)}")
        return replace(self.reweighted(self.definition.weights(step)), step=step)

    def reweighted(self, weights: Mapping[str, float]) -> Revision:
        """With other shares, and the fewest units moved. A bandit's shares always change: it has one stage."""
        allocation = self.allocation.moved_to(weights)
        stage = self.stage + (self.definition.mode != "bandit")
        return replace(self, serial=self.serial + 1, stage=stage, allocation=allocation)

    def without(self, arm: str) -> Revision:
        """An arm's units go to the control; with no other arm left the experiment is stopped."""
        self._must_run()
        weights = dict.fromkeys((one.name for one in self.definition.arms), 0.0) | self.allocation.shares
        control = self.definition.control.name
        weights[control] += weights[arm]
        weights[arm] = 0.0
        changed = self.reweighted(weights)
        return replace(changed, state="stopped") if weights[control] == 1 else changed

    def ended(self, arm: str, state: State) -> Revision:
        """Every unit goes to one arm, from now on."""
        if arm not in {one.name for one in self.definition.arms}:
            known = ", ".join(one.name for one in self.definition.arms)
            raise ValueError(f"{self.definition.name} has no arm {arm[:60]!r}; its arms are {known}")
        weights = {one.name: float(one.name == arm) for one in self.definition.arms}
        return replace(self.reweighted(weights), state=state)

    def redefined(self, definition: Experiment) -> Revision:
        """The next revision, with statistics of its own; units keep their arms as far as the new weights allow."""
        weights = definition.weights()
        known = set(self.allocation.shares) & set(weights)
        allocation = self.allocation.moved_to(weights) if known else allocate(weights)
        return Revision(
            self.serial + 1, self.revision + 1, self.stage + 1, 0, "running", definition, allocation, self.by_command
        )

    def _must_run(self) -> None:
        if self.state != "running":
            raise ValueError(f"{self.definition.name} is {self.state}; start it again to change it")


def first_revision(definition: Experiment) -> Revision:
    return Revision(1, 1, 0, 0, "running", definition, allocate(definition.weights()))
