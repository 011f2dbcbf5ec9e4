"""Computes reports from a ledger. Every figure has a confidence sequence, so it is valid at any time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from serve.config.experiments import Arm
from serve.experiments.ledger.latency_buckets import latency_edges
from serve.experiments.ledger.queries import ByBucket, Clusters, Groups, Tables, costs, failures, latencies
from serve.experiments.ledger.records import Measure
from serve.experiments.ledger.store import Ledger
from serve.experiments.report import ArmReport, Bounds, ClassReport, Comparison, Energy, Verdict, decide_verdict
from serve.experiments.revision import Revision
from serve.experiments.stats import bernoulli, clusters, mixture, ratio
from serve.experiments.stats.mixture import Array, Estimate
from serve.experiments.stats.multiple import bonferroni, holm

CALIBRATION_BINS = 10
COST_EFFECT = 0.05  # of the mean: the difference at which the intervals of engine time and energy are narrowest
LABEL_EFFECT = 0.05
ALARM_ALPHA = 0.01

Tallies = Mapping[Measure, ByBucket]
Calibration = tuple[float, float]  # Brier score of the top class, expected calibration error
Source = Callable[[], str]  # the source of this node's energy prices; empty without one


@dataclass(frozen=True)
class Analysis:
    """The statistics of one revision, from its tables in the ledger."""

    revision: Revision
    tables: Tables
    source: Source

    @classmethod
    def of(cls, ledger: Ledger, revision: Revision, source: Source, until: float | None = None) -> Analysis:
        """`until`: Unix time up to which outcomes count."""
        return cls(revision, Tables(ledger, revision.definition.name, revision.revision, until), source)

    @property
    def _level(self) -> float:
        return bonferroni(self.revision.definition.alpha, len(self.revision.definition.arms) - 1)

    def clusters(self, arm: str) -> Clusters:
        """Outcomes of the control (side 0) and an arm (side 1)."""
        definition = self.revision.definition
        if definition.paired:
            return self.tables.pairs(definition.control.name, arm)
        stages = definition.mode != "bandit"
        return self.tables.separate(definition.control.name, arm, definition.metric, stages)

    def difference(self, arm: str, level: float | None = None) -> tuple[int, Bounds]:
        """Samples of the comparison with the control, and the difference. `level` defaults to the report's."""
        table, level = self.clusters(arm), level or self._level
        if self.revision.definition.mode == "bandit":
            return self._samples_of(table), self._separate_difference(table, level)
        estimate = clusters.difference(table.counts, table.sums, table.times)
        return self._samples_of(table), _bounds(estimate, self.revision.definition.effect, level)

    def verdict(self, arm: str) -> Verdict:
        """The verdict on an arm, as in the report."""
        return decide_verdict(self.difference(arm)[1], self.revision.definition.effect)

    def belief(self, arm: str) -> tuple[float, float]:
        """An arm's mean metric, and a lower bound of its number of independent samples."""
        definition = self.revision.definition
        side = int(arm != definition.control.name)
        counts, sums, times = self.clusters(arm if side else definition.arms[1].name).of_arm(side)
        samples = float(clusters.alike_samples(counts, times))
        return (float((sums * times).sum() / (counts * times).sum()), samples) if samples else (0.0, 0.0)

    def _samples_of(self, table: Clusters) -> int:
        """Samples of a comparison: an image that both arms classified counts once."""
        return table.samples[0] if self.revision.definition.paired else sum(table.samples)

    def comparisons(self) -> list[Comparison]:
        """Every arm against the control."""
        definition = self.revision.definition
        pairs = [(arm.name, self.clusters(arm.name)) for arm in definition.arms[1:]]
        if definition.mode == "bandit":
            return [self._compare_separately(name, table) for name, table in pairs]
        estimates = [clusters.difference(table.counts, table.sums, table.times) for _, table in pairs]
        p_values = [self._p_value(table, estimate) for (_, table), estimate in zip(pairs, estimates, strict=True)]
        return [
            self._compare(name, table, estimate, p, adjusted)
            for (name, table), estimate, p, adjusted in zip(pairs, estimates, p_values, holm(p_values), strict=True)
        ]

    def _p_value(self, table: Clusters, estimate: Estimate) -> float:
        """The exact test for pairs of single requests, the normal mixture for everything else."""
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
        samples = self._samples_of(table)
        target = max(abs(bounds.value or 0.0), definition.effect - abs(bounds.value or 0.0))
        growth = mixture.growth_to_reach(estimate, definition.effect, self._level, target)
        needed = None if not np.isfinite(growth) else int(np.ceil(samples * (growth - 1)))
        agreement = self._agreement(arm) if definition.paired else None
        return Comparison(
            arm, decide_verdict(bounds, definition.effect), bounds, samples, needed, p, adjusted, agreement
        )

    def _agreement(self, arm: str) -> Bounds | None:
        bounds = _proportion(self.tables.agreement(self.revision.definition.control.name, arm), self._level)
        return None if bounds.value is None else bounds

    def _compare_separately(self, arm: str, table: Clusters) -> Comparison:
        bounds = self._separate_difference(table, self._level)
        verdict = decide_verdict(bounds, self.revision.definition.effect)
        return Comparison(arm, verdict, bounds, self._samples_of(table), None, None, None, None)

    def _separate_difference(self, table: Clusters, level: float) -> Bounds:
        """A bandit's shares depend on earlier outcomes, so only each arm's interval is valid; both bound the difference."""
        control, candidate = (self._own_metric(table, side, level / 2) for side in (0, 1))
        value = None if control.value is None or candidate.value is None else candidate.value - control.value
        return Bounds(value, candidate.low - control.high, candidate.high - control.low)

    def _own_metric(self, table: Clusters, side: int, level: float) -> Bounds:
        groups = table.of_arm(side)
        if self.revision.definition.metric == "accuracy":
            return _proportion(groups, level)
        return _bounds(clusters.mean(*groups), self.revision.definition.effect, level)

    def arms(self) -> list[ArmReport]:
        """The figures of every arm, control first."""
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
        failed = failures(tallies["failed"], arm.name)
        requests, bad = _totals(failed)
        latency = latencies(tallies["latency"], arm.name)
        brier, error = calibration or (None, None)
        return ArmReport(
            name=arm.name,
            model=arm.model,
            share=self.revision.allocation.shares.get(arm.name, 0.0),
            answers=requests - bad,
            failures=bad,
            dropped_copies=sum(tally.count for key, tally in tallies["dropped"].items() if key[0] == arm.name),
            samples=table.samples[side],
            units=table.units[side],
            metric=self._own_metric(table, side, level),
            error_rate=_proportion(failed, level),
            p50_ms=quantile_ms(latency, 0.5, level),
            p99_ms=quantile_ms(latency, 0.99, level),
            engine_ms=_mean_cost(costs(tallies["engine"], arm.name), level).scaled(1000),
            energy=self._energy(costs(tallies["joules"], arm.name), level),
            brier=brier,
            calibration_error=error,
        )

    def guardrail_bounds(self, arm: str, level: float) -> Mapping[str, Bounds]:
        """Bounds of the quantities that guardrails limit, by guardrail."""
        bounds = {
            "p99_ms": quantile_ms(latencies(self.tables.tally("latency"), arm), 0.99, level),
            "error_rate": _proportion(failures(self.tables.tally("failed"), arm), level),
        }
        energy = self._energy(costs(self.tables.tally("joules"), arm), level)
        if energy is not None:
            bounds["joules_per_image"] = energy.joules_per_image
        if self.revision.definition.guardrails.loss is not None:
            bounds["loss"] = self.difference(arm, level)[1].scaled(-1)
        return bounds

    def _energy(self, joules: Groups, level: float) -> Energy | None:
        bounds = _mean_cost(joules, level)
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
        """Accuracy by true class and arm, with simultaneous intervals.

        Grouped by class; classes on which the arms differ most come first.
        """
        tables = self.tables.classes()
        level = bonferroni(self.revision.definition.alpha, len(tables))
        by_class: dict[int, list[ClassReport]] = {}
        for (arm, index), groups in tables.items():
            by_class.setdefault(index, []).append(
                ClassReport(arm, index, _totals(groups)[0], _proportion(groups, level))
            )
        return [report for reports in sorted(by_class.values(), key=_spread, reverse=True) for report in reports]

    def sample_ratio_p_value(self, shares: Mapping[int, Mapping[str, float]]) -> float | None:
        """p-value of the sample-ratio test; None for a bandit, whose shares change all the time.

        `shares`: declared shares by stage and arm.
        """
        if self.revision.definition.mode == "bandit":
            return None
        names = [arm.name for arm in self.revision.definition.arms]
        counts: dict[int, Array] = {}
        for stage, arm, units in self.tables.new_units():
            counts.setdefault(stage, np.zeros(len(names)))[names.index(arm)] += units
        stages = [
            (seen, np.array([shares[stage].get(name, 0.0) for name in names]))
            for stage, seen in counts.items()
            if stage in shares
        ]
        return ratio.mismatch_p_value(stages)

    def late_labels(self, until: float) -> list[str]:
        """Arms whose share of labelled answers differs from the control's, of answers before `until`."""
        control, *names = [arm.name for arm in self.revision.definition.arms]
        level = bonferroni(ALARM_ALPHA, len(names))
        suspects = []
        for name in names:
            table = self.tables.labels(control, name, until)
            estimate = clusters.difference(table.counts, table.sums, table.times)
            if bool(mixture.interval(estimate, LABEL_EFFECT, level).excludes(0)):
                suspects.append(name)
        return suspects


def _spread(reports: Sequence[ClassReport]) -> float:
    """The largest difference of accuracy between arms on a class."""
    values = [report.accuracy.value or 0.0 for report in reports]
    return max(values) - min(values)


def _totals(groups: Groups) -> tuple[int, int]:
    """Number of samples and of successes."""
    counts, sums, times = groups
    return int((counts * times).sum()), int((sums * times).sum())


def _bounds(estimate: Estimate, effect: float, level: float) -> Bounds:
    interval = mixture.interval(estimate, effect, level)
    value = float(estimate.value)
    return Bounds(None if np.isnan(value) else value, float(interval.low), float(interval.high))


def _proportion(groups: Groups, level: float) -> Bounds:
    """The share of successes, and its confidence sequence."""
    counts, sums, times = groups
    samples = clusters.effective_samples(counts, sums, times, level)
    size = (counts * times).sum()
    share = float((sums * times).sum() / size) if size else None
    interval = bernoulli.proportion(np.array(share or 0.0) * samples, samples, level)
    return Bounds(share, float(interval.low), float(interval.high))


def _mean_cost(groups: Groups, level: float) -> Bounds:
    """Mean per image of a quantity that is never negative."""
    estimate = clusters.mean(*groups)
    value = float(estimate.value)
    if np.isnan(value):
        return Bounds(None, 0.0, np.inf)
    interval = mixture.interval(estimate, COST_EFFECT * value, level)
    return Bounds(value, max(0.0, float(interval.low)), float(interval.high))


def quantile_ms(latencies: Mapping[int, Array], level: float, alpha: float) -> Bounds:
    """The quantile `level` of latency in milliseconds, from counts [buckets] by cluster; `alpha` of its bounds."""
    counts = np.sum([np.zeros_like(latency_edges()[:-1]), *latencies.values()], axis=0)
    if not counts.any():
        return Bounds(None, 0.0, np.inf)
    edges = latency_edges() * 1000
    middle = int(np.searchsorted(np.cumsum(counts), level * counts.sum()))
    value = float(edges[middle + 1] if np.isfinite(edges[middle + 1]) else edges[middle])
    filled = np.flatnonzero(counts)
    seen = slice(int(filled[0]), int(filled[-1]) + 2)
    sizes, below, times = _by_edge(latencies, seen)
    samples = clusters.effective_samples(sizes, below, times, alpha)
    share = (below * times).sum(axis=-1) / counts.sum()
    return Bounds(value, *bernoulli.quantile(edges[seen], share, samples, level, alpha))


def _by_edge(latencies: Mapping[int, Array], seen: slice) -> Groups:
    """Answers, faster answers and multiplicity, each [edges, clusters], by edge between latency buckets."""
    patterns: list[tuple[Array, Array, Array]] = []
    for cluster, counts in latencies.items():
        faster = np.concatenate([[0.0], np.cumsum(counts)])[seen]
        ones = np.ones_like(faster)
        if cluster == 0:
            patterns += [(ones, 0 * ones, counts.sum() - faster), (ones, ones, faster)]
        else:
            patterns.append((counts.sum() * ones, faster, ones))
    sizes, below, times = (np.stack(columns, axis=-1) for columns in zip(*patterns, strict=True))
    return sizes, below, times
