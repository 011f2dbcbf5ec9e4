"""The report of an experiment, and a sentence that recommends an arm."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from serve.config.experiments import Experiment, Metric


@dataclass(frozen=True)
class Bounds:
    """An estimate (None: no samples) and the bounds of its confidence sequence."""

    value: float | None
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 is outside the bounds."""
        return self.low > 0 or self.high < 0

    def scaled(self, factor: float) -> Bounds:
        """The bounds of the same estimate in another unit; `factor` may be negative."""
        low, high = sorted((self.low * factor, self.high * factor))
        return Bounds(None if self.value is None else self.value * factor, low, high)


@dataclass(frozen=True)
class Energy:
    """Active joules per image (engine time times the node agent's price at that time), and the source of the price."""

    joules_per_image: Bounds
    source: str
    method: str = "estimated"


@dataclass(frozen=True)
class ArmReport:
    """The figures of one arm. Times are milliseconds."""

    name: str
    model: str
    share: float
    answers: int
    failures: int
    dropped_copies: int
    samples: int  # images with a known outcome
    units: int  # of assignment: requests, or sticky keys
    metric: Bounds
    error_rate: Bounds
    p50_ms: Bounds
    p99_ms: Bounds
    engine_ms: Bounds  # per image, without waiting; other arms on the same cores still slow it down
    energy: Energy | None
    brier: float | None
    calibration_error: float | None


Verdict = Literal[
    "better", "worse", "alike", "open"
]  # than the control; alike: the difference is smaller than `effect`


def decide_verdict(difference: Bounds, effect: float) -> Verdict:
    """The verdict on a difference from the control. The report's sentence, ramps and bandits all use it."""
    if difference.excludes_zero:
        return "better" if difference.low > 0 else "worse"
    return "alike" if _is_negligible(difference, effect) else "open"


@dataclass(frozen=True)
class Comparison:
    """An arm against the control. `needed`: estimated number of further samples until there is a verdict.

    `settled_after`: samples at the first point of the history from which on the difference excludes 0.
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
class HistoryPoint:
    """The difference of an arm from the control as it was known at a Unix time."""

    at: float
    arm: str
    samples: int
    difference: Bounds


@dataclass(frozen=True)
class Report:
    """All figures of one revision; the fields are those of the JSON document."""

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
    history: list[HistoryPoint]
    alarms: list[str]
    notes: list[str]
    decisions: list[dict[str, Any]] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """JSON-ready; infinite and undefined numbers are null."""
        return {key: _json_ready(value) for key, value in asdict(self).items()}


def _json_ready(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _json_ready(item) for key, item in value.items()}
    return [_json_ready(item) for item in value] if isinstance(value, list) else value


def recommend(definition: Experiment, arms: list[ArmReport], comparisons: list[Comparison], alarms: list[str]) -> str:
    """A sentence that names the arm to keep, and the reason."""
    if alarms:
        return f"Do not decide on these figures: {alarms[0]}."
    control, metric = definition.control.name, definition.metric
    better, worse = (
        [comparison for comparison in comparisons if comparison.verdict == verdict] for verdict in ("better", "worse")
    )
    if better:
        best = max(better, key=lambda comparison: comparison.difference.value or 0.0)
        above = f"its {metric} is {_format_difference(metric, best.difference)} above that of {control}"
        return f"Keep {best.arm}: {above}{_format_samples(best)}."
    if len(worse) == len(comparisons):
        least = max(worse, key=lambda comparison: comparison.difference.value or 0.0)
        rest = "every other arm is worse" if len(worse) > 1 else f"{least.arm} is worse"
        return f"Keep {control}: {rest}, by {_format_difference(metric, least.difference.scaled(-1))}{_format_samples(least)}."
    if all(_is_negligible(comparison.difference, definition.effect) for comparison in comparisons):
        effect = f"{100 * definition.effect:g} points" if metric == "accuracy" else f"{definition.effect:g}"
        return f"No arm differs by {effect} or more: keep {_cheapest(arms)}, which costs least."
    undecided = [comparison for comparison in comparisons if comparison not in worse]
    needed = [comparison.needed for comparison in undecided if comparison.needed is not None]
    if not needed:
        return "Undecided: too few labels to estimate how many more are needed."
    return f"Undecided: about {_rounded(max(needed))} more labelled samples are needed."


def _is_negligible(difference: Bounds, effect: float) -> bool:
    return -effect < difference.low and difference.high < effect


def samples_to_conclusion(comparison: Comparison, history: list[HistoryPoint]) -> int | None:
    """Samples at the first point of the history from which on the difference excludes 0; None if there is none."""
    if not comparison.difference.excludes_zero:
        return None
    samples = comparison.samples
    for point in reversed([point for point in history if point.arm == comparison.arm]):
        if not point.difference.excludes_zero:
            break
        samples = point.samples
    return samples


def _format_samples(comparison: Comparison) -> str:
    return "" if comparison.settled_after is None else f"; {comparison.settled_after:,} samples settled it"


def _format_difference(metric: Metric, difference: Bounds) -> str:
    """Value and bounds; accuracy in percentage points, a reward unchanged."""
    value, low, high = difference.value or 0.0, difference.low, difference.high
    if metric == "reward":
        return f"{value:.4g} ({low:.4g} to {high:.4g})"
    return f"{100 * value:.1f} points ({100 * low:.1f} to {100 * high:.1f})"


def _cheapest(arms: list[ArmReport]) -> str:
    def cost(arm: ArmReport) -> float:
        if all(other.energy is not None for other in arms) and arm.energy is not None:
            return arm.energy.joules_per_image.value or math.inf
        return arm.engine_ms.value or math.inf

    return min(arms, key=cost).name


def _rounded(count: int) -> int:
    """Rounds to two significant digits, the precision of the estimate."""
    digits = max(0, len(str(count)) - 2)
    return round(count, -digits)
