"""The state of an experiment: a row of the ledger that gateways follow, replaced by a row with a higher serial."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from serve.config.experiments import Experiment
from serve.experiments.allocation import Allocation, allocate

State = Literal["running", "stopped", "promoted"]


@dataclass(frozen=True)
class Revision:
    """`serial` counts all changes, `revision` definitions (each has its own statistics), `stage` changes of the shares."""

    serial: int
    revision: int
    stage: int
    step: int  # of the ramp
    state: State
    definition: Experiment
    allocation: Allocation
    by_command: bool = False  # started by a command, not declared in the configuration
    stopped: frozenset[str] = frozenset()  # arms without a share until a user starts the experiment again
    held: frozenset[str] = frozenset()  # arms that were worse: the ramp waits for a user

    @property
    def salt(self) -> str:
        """The salt of the hash that assigns units: the name, so that experiments assign independently of each other."""
        return self.definition.name

    @property
    def active(self) -> tuple[str, ...]:
        """The arms that are not stopped, in order; there is at least one."""
        return tuple(arm.name for arm in self.definition.arms if arm.name not in self.stopped)

    @property
    def ramps(self) -> bool:
        """Whether the ramp has a next step that is taken automatically."""
        definition = self.definition
        more = definition.mode == "canary" and self.step + 1 < len(definition.ramp)
        return more and self.state == "running" and definition.stage_seconds > 0 and not self.held

    def ramped(self, step: int) -> Revision:
        """Moves to another step of the ramp. Raises ValueError when there is no such step or the experiment has ended."""
        self._must_run()
        if self.definition.mode != "canary" or not 0 <= step < len(self.definition.ramp):
            raise ValueError(f"{self.definition.name} has no step {step}; its ramp is {list(self.definition.ramp)}")
        return replace(self._moved(self.definition.weights(step), self.stopped), step=step, held=frozenset())

    def holding(self, arm: str) -> Revision:
        """Keeps the current step of the ramp until a user continues. Raises ValueError when the experiment has ended."""
        self._must_run()
        return replace(self, serial=self.serial + 1, held=self.held | {arm})

    def reweighted(self, weights: Mapping[str, float]) -> Revision:
        """Changes the shares; stopped arms get none. Raises ValueError when the experiment has ended."""
        self._must_run()
        return self._moved(weights, self.stopped)

    def without(self, arm: str) -> Revision:
        """Stops an arm and moves its units to the control; stops the experiment when no other arm is left.

        Raises ValueError for an unknown arm, and when the experiment has ended.
        """
        self._must_run()
        self._must_have(arm)
        changed = self._moved(self._shares, self.stopped | {arm})
        ended = len(changed.active) == 1 or (not self.definition.paired and len(changed.allocation.shares) == 1)
        return replace(changed, state="stopped") if ended else changed

    def ended(self, arm: str, state: State) -> Revision:
        """Moves all units to one arm. State "stopped" also stops all other arms. Raises ValueError for an unknown arm."""
        self._must_have(arm)
        names = [declared.name for declared in self.definition.arms]
        others = frozenset(names) - {arm}
        weights = {name: float(name == arm) for name in names}
        return replace(self._moved(weights, others if state == "stopped" else self.stopped - {arm}), state=state)

    def redefined(self, definition: Experiment) -> Revision:
        """The next revision, with its own statistics; units keep their arms as far as the new weights allow.

        Arms that were stopped or held keep this state, by name. Raises ValueError when no arm is left.
        """
        names = {arm.name for arm in definition.arms}
        stopped, held = self.stopped & names, self.held & names
        weights = _permitted(definition.weights(), stopped)
        known = set(self.allocation.shares) & set(weights)
        allocation = self.allocation.moved_to(weights) if known else allocate(weights)
        state: State = "stopped" if len(names - stopped) == 1 else "running"
        return Revision(
            self.serial + 1, self.revision + 1, self.stage + 1, 0, state, definition, allocation, self.by_command,
            stopped, held,
        )  # fmt: skip

    def restarted(self, definition: Experiment) -> Revision:
        """The next revision, with all arms."""
        return replace(self, stopped=frozenset(), held=frozenset()).redefined(definition)

    @property
    def _shares(self) -> dict[str, float]:
        return dict.fromkeys((arm.name for arm in self.definition.arms), 0.0) | self.allocation.shares

    def _moved(self, weights: Mapping[str, float], stopped: frozenset[str]) -> Revision:
        """Moves the fewest units. A bandit has a single stage, since its shares change continuously."""
        allocation = self.allocation.moved_to(_permitted(weights, stopped))
        stage = self.stage + (self.definition.mode != "bandit")
        return replace(self, serial=self.serial + 1, stage=stage, allocation=allocation, stopped=stopped)

    def _must_run(self) -> None:
        if self.state != "running":
            raise ValueError(f"{self.definition.name} is {self.state}; start it again to change it")

    def _must_have(self, arm: str) -> None:
        names = [declared.name for declared in self.definition.arms]
        if arm not in names:
            raise ValueError(f"{self.definition.name} has no arm {arm[:60]!r}; its arms are {', '.join(names)}")


def _permitted(weights: Mapping[str, float], stopped: frozenset[str]) -> dict[str, float]:
    """Weights that give the shares of stopped arms to the control, or to the first arm that is not stopped."""
    receiver = next((arm for arm in weights if arm not in stopped), None)
    if receiver is None:
        raise ValueError(f"all of its arms were stopped ({', '.join(weights)}); start it again")
    kept = {arm: 0.0 if arm in stopped else weight for arm, weight in weights.items()}
    kept[receiver] += sum(weights[arm] for arm in weights if arm in stopped)
    return kept


def first_revision(definition: Experiment) -> Revision:
    """A new experiment that runs with all its arms."""
    return Revision(1, 1, 0, 0, "running", definition, allocate(definition.weights()))
