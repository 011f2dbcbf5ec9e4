"""From a ledger to a report: every figure with a confidence sequence, so that it may be read at any time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from serve.experiments.definition import Arm
from serve.experiments.ledger.latency import latency_edges
from serve.experiments.ledger.records import Measure
from serve.experiments.ledger.store import Ledger
from serve.experiments.ledger.tables import ByBucket, Clusters, Tables, Tally, latencies
from serve.experiments.report import ArmReport, Bounds, ClassReport, Comparison, Energy
from serve.experiments.revision import Revision
from serve.experiments.stats import bernoulli, clusters, mixture, ratio
from serve.experiments.stats.mixture import Array, Estimate
from serve.experiments.stats.multiple import bonferroni, holm

CALIBRATION_BINS = 10
COST_EFFECT = 0.05  # of the mean: where the intervals of engine time and energy are sharpest
LABEL_EFFECT = 0.05
ALARM_ALPHA = 0.01

Tallies = Mapping[Measure, ByBucket]
Calibration = tuple[float, float]  # Brier score of the top class, expected calibration error
Source = Callable[[], str]  # where the prices of energy are read on this node; empty: nowhere


@dataclass(frozen=True)
class Analysis:
    """Answers what is asked of a revision's tables."""

    revision: Revision
    tables: Tables
    source: Source

    @classmethod
    def of(cls, ledger: Ledger, revision: Revision, source: Source, until: float | None = None) -> Analysis:
        return cls(revision, Tables(ledger, revision.definition.name, revision.revision, until), source)

    @property
    def _level(self) -> float:
        return bonferroni(self.revision.definition.alpha, len(self.revision.definition.arms) - 1)

    def clusters(self, arm: str) -> Clusters:
        """Outcomes of the control and an arm."""
        definition = self.revision.definition
        if definition.paired:
            return self.tables.pairs(definition.control.name, arm)
        stages = definition.mode != "bandit"
        return self.tables.separate(definition.control.name, arm, definition.metric, stages)

    def difference(self, arm: str) -> tuple[int, Bounds]:
        """Samples of a comparison with the control, and the difference."""
        table = self.clusters(arm)
        if self.revision.definition.mode == "bandit":
            return sum(table.samples), self._apart(arm, table).difference
        estimate = clusters.difference(table.counts, table.sums, table.times)
        return self._compared(table), _bounds(estimate, self.revision.definition.effect, self._level)

    def _compared(self, table: Clusters) -> int:
        """Samples: an image that both arms saw is one."""
        return table.samples[0] if self.revision.definition.paired else sum(table.samples)

    def comparisons(self) -> list[Comparison]:
        """Every arm against the control."""
        definition = self.revision.definition
        pairs = [(arm.name, self.clusters(arm.name)) for arm in definition.arms[1:]]
        estimates = [clusters.difference(one.counts, one.sums, one.times) for _, one in pairs]
        if definition.mode == "bandit":
            return [self._apart(name, one) for name, one in pairs]
        p_values = [self._p_value(one, estimate) for (_, one), estimate in zip(pairs, estimates, strict=True)]
        return [
            self._compare(name, one, estimate, p, adjusted)
            for (name, one), estimate, p, adjusted in zip(pairs, estimates, p_values, holm(p_values), strict=True)
        ]

    def _p_value(self, table: Clusters, estimate: Estimate) -> float:
        """Pairs of single requests have an exact test; everything else the mixture's."""
        definition = self.revision.definition
        single = (table.counts <= 1).all()
        if definition.paired and single and table.counts.size:
            signs = table.sums[0, :, 1] - table.sums[0, :, 0]
            first, second = (float(table.times[signs == sign].sum()) for sign in (-1, 1))
            return float(bernoulli.discordant_p_value(np.array(first), np.array(second)))
        return float(mixture.p_value(estimate, definition.effect))

    def _compare(self, arm: str, table: Clusters, estimate: Estimate, p: float, adjusted: float) -> Comparison:
        definition = self.revision.definition
        bounds = _bounds(estimate, definition.effect, self._level)
        samples = self._compared(table)
        target = max(abs(bounds.value or 0.0), definition.effect - abs(bounds.value or 0.0))
        growth = mixture.growth_to_reach(estimate, definition.effect, self._level, target)
        needed = None if not np.isfinite(growth) else int(np.ceil(samples * (growth - 1)))
        both, alike = self.tables.agreement(definition.control.name, arm) if definition.paired else (0, 0)
        agreement = None if not both else _proportion(alike, both, self._level)
        return Comparison(arm, bounds, samples, needed, p, adjusted, agreement)

    def _apart(self, arm: str, table: Clusters) -> Comparison:
        """A bandit looks where it hopes, so only each arm's own interval is valid: their union bounds the difference."""
        level = self._level / 2
        control, candidate = (self._own_metric(table, side, level) for side in (0, 1))
        value = None if control.value is None or candidate.value is None else candidate.value - control.value
        bounds = Bounds(value, candidate.low - control.high, candidate.high - control.low)
        return Comparison(arm, bounds, sum(table.samples), None, None, None, None)

    def _own_metric(self, table: Clusters, side: int, level: float) -> Bounds:
        counts, sums, times = table.of_arm(side)
        if self.revision.definition.metric == "accuracy" and (counts <= 1).all():
            return _proportion(float((sums * times).sum()), float((counts * times).sum()), level)
        return _bounds(clusters.mean(counts, sums, times), self.revision.definition.effect, level)

    def arms(self) -> list[ArmReport]:
        names = [arm.name for arm in self.revision.definition.arms]
        level = bonferroni(self.revision.definition.alpha, len(names))
        tables = {name: self.clusters(name) for name in names[1:]}
        tallies = {measure: self.tables.tally(measure) for measure in get_args(Measure)}
        calibration = self._calibration()
        return [
            self._arm(arm, tables[arm.name if side else names[1]], side, tallies, calibration.get(arm.name), level)
            for side, arm in ((min(position, 1), arm) for position, arm in enumerate(self.revision.definition.arms))
        ]

    def _arm(
        self, arm: Arm, table: Clusters, side: int, tallies: Tallies, calibration: Calibration | None, level: float
    ) -> ArmReport:
        good, bad = _answers(tallies["failed"], arm.name)
        counts = latencies(tallies["latency"], arm.name)
        seconds = self._mean(tallies["engine"].get((arm.name, 0), Tally()), level)
        brier, error = calibration or (None, None)
        return ArmReport(
            name=arm.name,
            model=arm.model,
            share=self.revision.allocation.shares.get(arm.name, 0.0),
            answers=good,
            failures=bad,
            dropped_copies=tallies["dropped"].get((arm.name, 0), Tally()).count,
            samples=table.samples[side],
            metric=self._own_metric(table, side, level),
            error_rate=_proportion(bad, good + bad, level),
            p50_ms=quantile_ms(counts, 0.5, level),
            p99_ms=quantile_ms(counts, 0.99, level),
            engine_ms=seconds.scaled(1000),
            energy=self._energy(tallies["joules"].get((arm.name, 0), Tally()), level),
            brier=brier,
            calibration_error=error,
        )

    def guarded(self, arm: str, level: float) -> Mapping[str, Bounds]:
        """Bounds of what guardrails limit, by guardrail."""
        definition = self.revision.definition
        good, bad = _answers(self.tables.tally("failed"), arm)
        counts = latencies(self.tables.tally("latency"), arm)
        bounds = {
            "p99_ms": quantile_ms(counts, 0.99, level),
            "error_rate": _proportion(bad, good + bad, level),
        }
        energy = self._energy(self.tables.tally("joules").get((arm, 0), Tally()), level)
        if energy is not None:
            bounds["joules_per_image"] = energy.joules_per_image
        if definition.guardrails.loss is not None:
            table = self.clusters(arm)
            gain = _bounds(clusters.difference(table.counts, table.sums, table.times), definition.effect, level)
            bounds["loss"] = gain.scaled(-1)
        return bounds

    def _mean(self, tally: Tally, level: float) -> Bounds:
        if tally.count < 2:
            return Bounds(None, 0.0, np.inf)
        estimate = clusters.mean(
            *clusters.of_moments(np.array(float(tally.count)), np.array(tally.total), np.array(tally.squares))
        )
        return _bounds(estimate, COST_EFFECT * tally.total / tally.count, level)

    def _energy(self, joules: Tally, level: float) -> Energy | None:
        bounds = self._mean(joules, level)
        return None if bounds.value is None else Energy(bounds, self.source())

    def _calibration(self) -> dict[str, Calibration]:
        by_arm: dict[str, list[tuple[float, ...]]] = {}
        for arm, _, *row in self.tables.calibration(CALIBRATION_BINS):
            by_arm.setdefault(arm, []).append(tuple(row))
        found = {}
        for arm, rows in by_arm.items():
            table = np.array(rows, float)
            total = table[:, 0].sum()
            found[arm] = (float(table[:, 3].sum() / total), float(np.abs(table[:, 2] - table[:, 1]).sum() / total))
        return found

    def classes(self) -> list[ClassReport]:
        """Accuracy by true class and arm; the intervals of all of them hold together.

        Those of a class stand together, and classes on which the arms differ most come first.
        """
        rows = self.tables.classes()
        level = bonferroni(self.revision.definition.alpha, len(rows))
        by_class: dict[int, list[ClassReport]] = {}
        for arm, index, images, right in rows:
            one = ClassReport(arm, int(index), int(images), _proportion(right, images, level))
            by_class.setdefault(one.class_index, []).append(one)
        return [one for some in sorted(by_class.values(), key=_spread, reverse=True) for one in some]

    def mismatch(self, shares: Mapping[int, Mapping[str, float]]) -> float | None:
        """p-value that units were split as promised; None for a bandit, whose promise changes all the time."""
        if self.revision.definition.mode == "bandit":
            return None
        names = [arm.name for arm in self.revision.definition.arms]
        counts: dict[int, Array] = {}
        for stage, arm, units in self.tables.newcomers():
            counts.setdefault(stage, np.zeros(len(names)))[names.index(arm)] += units
        stages = [
            (seen, np.array([shares[stage].get(name, 0.0) for name in names]))
            for stage, seen in counts.items()
            if stage in shares
        ]
        return ratio.mismatch_p_value(stages)

    def late_labels(self, until: float) -> list[str]:
        """Arms whose share of labelled answers, of those old enough, differs from the control's."""
        rows = self.tables.labels(until)
        names = [arm.name for arm in self.revision.definition.arms]
        suspects = []
        for name in names[1:]:
            table = _label_clusters([row for row in rows if row[0] in (names[0], name)], name)
            estimate = clusters.difference(table.counts, table.sums, table.times)
            level = bonferroni(ALARM_ALPHA, len(names) - 1)
            if bool(mixture.interval(estimate, LABEL_EFFECT, level).excludes(0)):
                suspects.append(name)
        return suspects


def _spread(of_class: Sequence[ClassReport]) -> float:
    """How far the arms are apart on a class."""
    values = [one.accuracy.value or 0.0 for one in of_class]
    return max(values) - min(values)


def _answers(failed: ByBucket, arm: str) -> tuple[int, int]:
    """Answers and failures of an arm."""
    good, bad = (failed.get((arm, bucket), Tally()).count for bucket in (0, 1))
    return good, bad


def _label_clusters(rows: list[tuple[str, int, int, int]], arm: str) -> Clusters:
    patterns: list[tuple[int, float, float, float]] = []  # side, images, labelled, times
    for name, unit, images, labelled in rows:
        side = int(name == arm)
        if unit == 0:
            patterns += [(side, 1, 1, labelled), (side, 1, 0, images - labelled)]
        else:
            patterns.append((side, images, labelled, 1))
    counts, sums = np.zeros((1, len(patterns), 2)), np.zeros((1, len(patterns), 2))
    for index, (side, count, known, _) in enumerate(patterns):
        counts[0, index, side], sums[0, index, side] = count, known
    return Clusters(counts, sums, np.array([times for *_, times in patterns], float))


def _bounds(estimate: Estimate, effect: float, level: float) -> Bounds:
    interval = mixture.interval(estimate, effect, level)
    value = float(estimate.value)
    return Bounds(None if np.isnan(value) else value, float(interval.low), float(interval.high))


def _proportion(successes: float, samples: float, level: float) -> Bounds:
    interval = bernoulli.proportion(np.array(float(successes)), np.array(float(samples)), level)
    return Bounds(successes / samples if samples else None, float(interval.low), float(interval.high))


def quantile_ms(counts: Array, level: float, alpha: float) -> Bounds:
    """A latency quantile in milliseconds from counts by latency bucket."""
    if not counts.sum():
        return Bounds(None, 0.0, np.inf)
    edges = latency_edges() * 1000
    low, high = bernoulli.quantile(edges, counts, level, alpha)
    middle = int(np.searchsorted(np.cumsum(counts), level * counts.sum()))
    return Bounds(float(edges[middle + 1] if np.isfinite(edges[middle + 1]) else edges[middle]), low, high)
