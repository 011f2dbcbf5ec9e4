"""What an experiment has shown so far, and the one sentence that says what to do."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from serve.config.experiments import Experiment, Metric


@dataclass(frozen=True)
class Bounds:
    """An estimate (None: no samples) and its confidence sequence."""

    value: float | None
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0

    def scaled(self, factor: float) -> Bounds:
        low, high = sorted((self.low * factor, self.high * factor))
        return Bounds(None if self.value is None else self.value * factor, low, high)


@dataclass(frozen=True)
class Energy:
    """Active joules per image: engine time at the meter's price of that moment, and where the price is from."""

    joules_per_image: Bounds
    source: str
    method: str = "estimated"


@dataclass(frozen=True)
class ArmReport:
    """One arm by itself. Times are milliseconds."""

    name: str
    model: str
    share: float
    answers: int
    failures: int
    dropped_copies: int
    samples: int  # images whose outcome is known
    units: int  # what they belong to: requests, or sticky keys
    metric: Bounds
    error_rate: Bounds
    p50_ms: Bounds
    p99_ms: Bounds
    engine_ms: Bounds  # per image: what the arm itself costs, whoever else uses the cores
    energy: Energy | None
    brier: float | None
    calibration_error: float | None


Verdict = Literal["better", "worse", "alike", "open"]  # than the control; alike: no difference that matters


def judge(difference: Bounds, effect: float) -> Verdict:
    """What a difference from the control means. The report's sentence, ramps and bandits all follow from it."""
    if difference.excludes_zero:
        return "better" if difference.low > 0 else "worse"
    return "alike" if _immaterial(difference, effect) else "open"


@dataclass(frozen=True)
class Comparison:
    """An arm against the control. `needed`: further samples after which the question is probably settled.

    `settled_after`: samples at the first moment of the history from which on a difference was shown.
    """

    arm: str
    verdict: Verdict
    difference: Bounds
    samples: int
    needed: int | None
    p_value: float | None
    adjusted_p_value: float | None
    agreement: Bounds | None
    settled_after: int | None = None


@dataclass(frozen=True)
class ClassReport:
    """Accuracy of an arm on one true class."""

    arm: str
    class_index: int
    samples: int
    accuracy: Bounds


@dataclass(frozen=True)
class Moment:
    """The difference of an arm as it was known at a time."""

    at: float
    arm: str
    samples: int
    difference: Bounds


@dataclass(frozen=True)
class Report:
    """Everything on one screen."""

    experiment: str
    revision: int
    stage: int
    state: str
    mode: str
    metric: str
    effect: float
    alpha: float
    sticky: str
    sentence: str
    arms: list[ArmReport]
    comparisons: list[Comparison]
    classes: list[ClassReport]
    history: list[Moment]
    alarms: list[str]
    notes: list[str]
    decisions: list[dict[str, Any]] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """As JSON; what is not bounded is null."""
        return {key: _plain(value) for key, value in asdict(self).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value


def conclude(definition: Experiment, arms: list[ArmReport], comparisons: list[Comparison], alarms: list[str]) -> str:
    """Which arm to keep and why, in one sentence."""
    if alarms:
        return f"Do not decide on these figures: {alarms[0]}."
    control, metric = definition.control.name, definition.metric
    better, worse = ([one for one in comparisons if one.verdict == verdict] for verdict in ("better", "worse"))
    if better:
        best = max(better, key=lambda one: one.difference.value or 0.0)
        above = f"its {metric} is {_gap(metric, best.difference)} above that of {control}"
        return f"Keep {best.arm}: {above}{_settled(best)}."
    if len(worse) == len(comparisons):
        least = max(worse, key=lambda one: one.difference.value or 0.0)
        rest = "every other arm is worse" if len(worse) > 1 else f"{least.arm} is worse"
        return f"Keep {control}: {rest}, by {_gap(metric, least.difference.scaled(-1))}{_settled(least)}."
    if all(_immaterial(one.difference, definition.effect) for one in comparisons):
        effect = f"{100 * definition.effect:g} points" if metric == "accuracy" else f"{definition.effect:g}"
        return f"No arm differs by {effect} or more: keep {_cheapest(arms)}, which costs least."
    needed = [one.needed for one in comparisons if one.needed is not None and one not in worse]
    more = (
        f"about {_rounded(max(needed))} more labelled samples"
        if needed
        else "more labelled samples than can be told yet"
    )
    return f"Undecided: {more} are needed."


def _immaterial(difference: Bounds, effect: float) -> bool:
    return -effect < difference.low and difference.high < effect


def settled_after(comparison: Comparison, history: list[Moment]) -> int | None:
    """Samples after which the difference was known, and stayed so; None where it is not known."""
    if not comparison.difference.excludes_zero:
        return None
    samples = comparison.samples
    for moment in reversed([one for one in history if one.arm == comparison.arm]):
        if not moment.difference.excludes_zero:
            break
        samples = moment.samples
    return samples


def _settled(comparison: Comparison) -> str:
    return "" if comparison.settled_after is None else f"; {comparison.settled_after:,} samples settled it"


def _gap(metric: Metric, difference: Bounds) -> str:
    """Accuracy in points, a reward in its own unit."""
    value, low, high = difference.value or 0.0, difference.low, difference.high
    if metric == "reward":
        return f"{value:.4g} ({low:.4g} to {high:.4g})"
    return f"{100 * value:.1f} points ({100 * low:.1f} to {100 * high:.1f})"


def _cheapest(arms: list[ArmReport]) -> str:
    def cost(arm: ArmReport) -> float:
        if all(one.energy is not None for one in arms) and arm.energy is not None:
            return arm.energy.joules_per_image.value or math.inf
        return arm.engine_ms.value or math.inf

    return min(arms, key=cost).name


def _rounded(count: int) -> int:
    """To two significant digits: more would pretend."""
    digits = max(0, len(str(count)) - 2)
    return round(count, -digits)
