"""Queries of the analysis: counts by stage, arm and unit, joined in the database, as arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Double, FromClause, Integer, and_, case, cast, exists, func, select

from serve.config.experiments import Metric
from serve.experiments.ledger.latency_buckets import LAST_BUCKET
from serve.experiments.ledger.records import Decision, Measure, Moments
from serve.experiments.ledger.schema import decisions, outcomes, predictions, revisions, tallies
from serve.experiments.ledger.store import Ledger
from serve.experiments.stats import clusters
from serve.experiments.stats.mixture import Array

Row = Any
Groups = tuple[Array, Array, Array]  # counts, sums and times [clusters] of one arm, for `stats.clusters.mean`


@dataclass(frozen=True)
class Clusters:
    """Tables for `stats.clusters.difference`: counts and sums [stages, clusters, 2], times [clusters]."""

    counts: Array
    sums: Array
    times: Array

    @property
    def samples(self) -> tuple[int, int]:
        """Samples of each arm."""
        first, second = (self.counts * self.times[:, np.newaxis]).sum(axis=(0, 1))
        return int(first), int(second)

    @property
    def units(self) -> tuple[int, int]:
        """Clusters in which each arm was seen."""
        first, second = ((self.counts > 0).any(axis=0) * self.times[:, np.newaxis]).sum(axis=0)
        return int(first), int(second)

    def of_arm(self, side: int) -> Groups:
        """One arm over all stages."""
        return self.counts[..., side].sum(axis=0), self.sums[..., side].sum(axis=0), self.times


ByBucket = dict[tuple[str, int, int], Moments]  # by arm, bucket and cluster


def failures(tallies: ByBucket, arm: str) -> Groups:
    """An arm's requests, and how many of them failed."""
    patterns: list[tuple[float, float, float]] = []
    for cluster in sorted({key[2] for key in tallies if key[0] == arm}):
        good, bad = (tallies.get((arm, bucket, cluster), Moments()).count for bucket in (0, 1))
        patterns += [(1, 0, good), (1, 1, bad)] if cluster == 0 else [(good + bad, bad, 1)]
    return groups(patterns)


def latencies(tallies: ByBucket, arm: str) -> dict[int, Array]:
    """An arm's answers [buckets] by cluster."""
    counts: dict[int, Array] = {}
    for (name, bucket, cluster), tally in tallies.items():
        if name == arm:
            counts.setdefault(cluster, np.zeros(LAST_BUCKET + 1))[bucket] = tally.count
    return counts


def costs(tallies: ByBucket, arm: str) -> Groups:
    """Images of an arm's answers, and their cost (engine seconds or joules)."""
    parts = []
    for (name, _, cluster), tally in tallies.items():
        if name == arm and cluster == 0:
            parts.append(clusters.of_moments(*(np.array(float(moment)) for moment in tally)))
        elif name == arm:
            parts.append(groups([(tally.count, tally.total, 1)]))
    counts, sums, times = zip(groups([]), *parts, strict=True)
    return np.concatenate(counts), np.concatenate(sums), np.concatenate(times)


def groups(patterns: Iterable[Sequence[float]]) -> Groups:
    """Arrays from rows of (count, sum, times)."""
    table = np.array([tuple(pattern) for pattern in patterns], float).reshape(-1, 3)
    return table[:, 0], table[:, 1], table[:, 2]


class Tables:
    """Reads one revision of an experiment, with the outcomes that were known at the time `until` (None: now)."""

    def __init__(self, ledger: Ledger, experiment: str, revision: int, until: float | None = None) -> None:
        self._engine = ledger.engine
        self._key = (experiment, revision)
        self._known = () if until is None else (outcomes.c.at < until,)

    def separate(self, control: str, arm: str, metric: Metric, stages: bool) -> Clusters:
        """Outcomes of two arms that answered different requests. Without `stages`, all are one stratum."""
        stage = predictions.c.stage if stages else cast(0, Integer)
        known = outcomes.c.reward if metric == "reward" else outcomes.c.class_index
        of_arms = (predictions.c.arm.in_([control, arm]), predictions.c.answered == 1, known.is_not(None))
        keys = (stage, case((predictions.c.arm == arm, 1), else_=0))
        return _clusters(self._by_unit(_labelled(), (*self._known, *of_arms), keys, _value(metric)))

    def pairs(self, control: str, arm: str) -> Clusters:
        """Correct answers of two arms that classified the same images."""
        other = predictions.alias()
        joined = _labelled().join(other, _same_image(other, arm))
        of_control = (predictions.c.arm == control, outcomes.c.class_index.is_not(None))
        rows = self._by_unit(joined, (*self._known, *of_control), (), _correct(predictions), _correct(other))
        table = np.array(
            [(images, control_hits, arm_hits, times) for _, images, control_hits, arm_hits, times in rows], float
        ).reshape(-1, 4)
        counts = np.repeat(table[np.newaxis, :, :1], 2, axis=2)
        return Clusters(counts, table[np.newaxis, :, 1:3], table[:, 3])

    def span(self) -> tuple[float, float] | None:
        """Unix times of the first and the last outcome of the revision."""
        query = select(func.min(outcomes.c.at), func.max(outcomes.c.at)).select_from(_labelled())
        query = query.where(*self._in_revision(), *self._known)
        (row,) = self._rows(query)
        return None if row[0] is None else (float(row[0]), float(row[1]))

    def agreement(self, control: str, arm: str) -> Groups:
        """Images that both arms classified, and how many of them equally."""
        other = predictions.alias()
        same = case((predictions.c.class_index == other.c.class_index, 1), else_=0)
        joined = predictions.join(other, _same_image(other, arm))
        rows = self._by_unit(joined, (predictions.c.arm == control,), (), cast(same, Double))
        return groups(row[1:] for row in rows)

    def classes(self) -> dict[tuple[str, int], Groups]:
        """Images and correct answers by arm and true class."""
        keys = (predictions.c.arm, outcomes.c.class_index)
        where = (*self._known, outcomes.c.class_index.is_not(None))
        found: dict[tuple[str, int], list[Row]] = {}
        for arm, index, _, *pattern in self._by_unit(_labelled(), where, keys, _correct(predictions)):
            found.setdefault((arm, int(index)), []).append(pattern)
        return {key: groups(patterns) for key, patterns in sorted(found.items())}

    def calibration(self, bins: int) -> list[Row]:
        """Rows (arm, bin, images, correct, sum of confidences, sum of squared errors), by bins of confidence."""
        hit, confidence = _correct(predictions), predictions.c.confidence
        which = func.floor(confidence * bins)
        sums = (func.count(), func.sum(hit), func.sum(confidence), func.sum((confidence - hit) * (confidence - hit)))
        query = select(predictions.c.arm, which, *sums).select_from(_labelled())
        query = query.where(*self._in_revision(), *self._known, outcomes.c.class_index.is_not(None))
        return self._rows(query.group_by(predictions.c.arm, which))

    def labels(self, control: str, arm: str, until: float) -> Clusters:
        """Answers of two arms before `until`, and how many of them have a label."""
        labelled = cast(case((outcomes.c.request_id.is_not(None), 1), else_=0), Double)
        of_arms = (predictions.c.arm.in_([control, arm]), predictions.c.answered == 1, predictions.c.at < until)
        keys = (cast(0, Integer), case((predictions.c.arm == arm, 1), else_=0))
        return _clusters(self._by_unit(predictions.outerjoin(outcomes, _outcome()), of_arms, keys, labelled))

    def new_units(self) -> list[Row]:
        """Rows (stage, arm, units) of units that were first seen at that stage: the declared shares apply to them."""
        columns = predictions.c
        first = (
            select(columns.unit, func.min(columns.stage).label("stage"))
            .where(*self._in_revision(), columns.answered == 1, columns.unit != 0)
            .group_by(columns.unit)
            .subquery()
        )
        joined = predictions.join(first, and_(first.c.unit == columns.unit, first.c.stage == columns.stage))
        keyed = (
            select(columns.stage, columns.arm, func.count(columns.unit.distinct()))
            .select_from(joined)
            .where(*self._in_revision(), columns.answered == 1)
            .group_by(columns.stage, columns.arm)
        )
        alone = (
            select(columns.stage, columns.arm, func.count(columns.request_id.distinct()))
            .where(*self._in_revision(), columns.answered == 1, columns.unit == 0)
            .group_by(columns.stage, columns.arm)
        )
        return [*self._rows(keyed), *self._rows(alone)]

    def tally(self, measure: Measure) -> ByBucket:
        """Totals over all stages and writers, by arm, bucket and cluster."""
        keys = (tallies.c.arm, tallies.c.bucket, tallies.c.cluster)
        sums = (func.sum(tallies.c[name]) for name in Moments._fields)
        of_revision = (tallies.c.experiment == self._key[0], tallies.c.revision == self._key[1])
        query = select(*keys, *sums).where(*of_revision, tallies.c.measure == measure).group_by(*keys)
        return {
            (arm, bucket, cluster): Moments(int(requests), int(count), *map(float, rest))
            for arm, bucket, cluster, requests, count, *rest in self._rows(query)
        }

    def stage_answers(self, stage: int, arm: str) -> int:
        """Answers of an arm at one stage."""
        where = (tallies.c.experiment == self._key[0], tallies.c.revision == self._key[1], tallies.c.stage == stage)
        query = select(func.sum(tallies.c.count)).where(*where, tallies.c.arm == arm, tallies.c.measure == "latency")
        (row,) = self._rows(query)
        return int(row[0] or 0)

    def decisions(self) -> list[Decision]:
        """All decisions on the experiment, of all revisions, oldest first."""
        query = (
            select(*(decisions.c[name] for name in Decision._fields))
            .where(decisions.c.experiment == self._key[0])
            .order_by(decisions.c.at)
        )
        with self._engine.connect() as connection:
            return [Decision(*row) for row in connection.execute(query)]

    def _by_unit(
        self,
        source: FromClause,
        where: Iterable[ColumnElement[bool]],
        keys: Iterable[Any],
        *values: ColumnElement[float],
    ) -> list[Row]:
        """Rows (*keys, unit, images, *sums of the values, times): one per sticky key, and one per group of equal requests.

        The unit of assignment is the key, or the request (unit 0) with all of its images, whose outcomes are correlated.
        """
        unit = predictions.c.unit
        request = case((unit == 0, predictions.c.request_id), else_="")
        named = [key.label(f"key{index}") for index, key in enumerate(keys)]
        sums = [func.sum(value).label(f"sum{index}") for index, value in enumerate(values)]
        images = func.count().label("images")
        inner = select(*named, unit, images, *sums).select_from(source).where(*self._in_revision(), *where)
        units = inner.group_by(*named, unit, request).subquery()
        return self._rows(select(*units.c, func.count()).group_by(*units.c))

    def _in_revision(self) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
        return predictions.c.experiment == self._key[0], predictions.c.revision == self._key[1]

    def _rows(self, query: Any) -> list[Row]:
        with self._engine.connect() as connection:
            return list(connection.execute(query))


def unmatched(ledger: Ledger, before: float, most: int = 100) -> tuple[int, list[str]]:
    """Outcomes before that time that have no prediction: their number, and at most `most` of their request ids."""
    with ledger.engine.connect() as connection:
        names = connection.execute(select(revisions.c.experiment).distinct()).scalars().all()
        # By experiment, since it is the first column of the primary key: otherwise each outcome would scan all predictions.
        known = (exists().where(_outcome(), predictions.c.experiment == name).correlate(outcomes) for name in names)
        where = (outcomes.c.at < before, *(~matched for matched in known))
        count = connection.execute(select(func.count()).select_from(outcomes).where(*where)).scalar_one()
        ids = connection.execute(select(outcomes.c.request_id).where(*where).limit(most))
        return int(count), list(ids.scalars())


def _outcome() -> ColumnElement[bool]:
    same = outcomes.c.request_id == predictions.c.request_id
    return and_(same, outcomes.c.position == predictions.c.position)


def _same_image(other: Any, arm: str) -> ColumnElement[bool]:
    keys = ("experiment", "request_id", "position", "revision")
    return and_(*(other.c[key] == predictions.c[key] for key in keys), other.c.arm == arm)


def _labelled() -> FromClause:
    return predictions.join(outcomes, _outcome())


def _correct(answers: Any) -> ColumnElement[float]:
    """1 where the predicted class is the label, else 0."""
    return cast(case((answers.c.class_index == outcomes.c.class_index, 1), else_=0), Double)


def _value(metric: Metric) -> ColumnElement[float]:
    return cast(outcomes.c.reward, Double) if metric == "reward" else _correct(predictions)


def _clusters(rows: list[Row]) -> Clusters:
    """From rows (stage, side, unit, images, sum, times). Rows of the same key are one cluster, over stages and sides."""
    stages = {stage: index for index, stage in enumerate(sorted({row[0] for row in rows}))}
    places: dict[Any, int] = {}
    cells = [(stages[row[0]], places.setdefault(row[2] or (row,), len(places)), *row[1:]) for row in rows]
    shape = (max(1, len(stages)), max(1, len(places)), 2)
    counts, sums, times = np.zeros(shape), np.zeros(shape), np.ones(shape[1])
    for stage, place, side, _, images, total, multiplicity in cells:
        counts[stage, place, side], sums[stage, place, side], times[place] = images, total, multiplicity
    return Clusters(counts, sums, times)
