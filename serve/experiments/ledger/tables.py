"""What the analysis reads: counts by stage, arm and unit, joined in the database, as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Double, Select, and_, case, cast, func, select

from serve.experiments.definition import Metric
from serve.experiments.ledger.latency import LAST_BUCKET
from serve.experiments.ledger.records import Decision, Measure
from serve.experiments.ledger.schema import decisions, outcomes, predictions, tallies
from serve.experiments.ledger.store import Ledger

Row = Any


@dataclass(frozen=True)
class Clusters:
    """Tables for `stats.clusters.difference`: counts and sums [stages, clusters, 2], times [clusters]."""

    counts: NDArray[np.float64]
    sums: NDArray[np.float64]
    times: NDArray[np.float64]

    @property
    def samples(self) -> tuple[int, int]:
        first, second = (self.counts * self.times[:, np.newaxis]).sum(axis=(0, 1))
        return int(first), int(second)

    def of_arm(self, side: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Counts, sums and times [clusters] of one arm over all stages, for `stats.clusters.mean`."""
        return self.counts[..., side].sum(axis=0), self.sums[..., side].sum(axis=0), self.times


@dataclass(frozen=True)
class Tally:
    """Number, sum and sum of squares of observations."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0


ByBucket = dict[tuple[str, int], Tally]  # and by arm


def latencies(tallies: ByBucket, arm: str) -> NDArray[np.float64]:
    """An arm's answers by latency bucket."""
    counts = np.zeros(LAST_BUCKET + 1)
    for (name, bucket), tally in tallies.items():
        if name == arm:
            counts[bucket] = tally.count
    return counts


class Tables:
    """Reads one revision of an experiment, with the outcomes that were known at the time `until` (None: now)."""

    def __init__(self, ledger: Ledger, experiment: str, revision: int, until: float | None = None) -> None:
        self._engine = ledger.engine
        self._key = (experiment, revision)
        self._known = () if until is None else (outcomes.c.at < until,)

    def separate(self, control: str, arm: str, metric: Metric, stages: bool) -> Clusters:
        """Outcomes of two arms that answered different requests. Without `stages` all are one stratum."""
        value = _value(metric)
        stage = predictions.c.stage if stages else cast(0, predictions.c.stage.type)
        which = case((predictions.c.arm == arm, 1), else_=0)
        known = outcomes.c.reward if metric == "reward" else outcomes.c.class_index
        ours = (predictions.c.arm.in_([control, arm]), predictions.c.answered == 1, known.is_not(None))
        query = self._labelled(*ours)
        single = predictions.c.unit == 0
        alone = query.add_columns(stage, which, value, func.count()).where(single).group_by(stage, which, value)
        keyed = (
            query.add_columns(stage, which, predictions.c.unit, func.count(), func.sum(value))
            .where(predictions.c.unit != 0)
            .group_by(stage, which, predictions.c.unit)
        )
        return _clusters(
            [(row[0], row[1], row[2], row[3]) for row in self._rows(alone)],
            [(row[0], row[1], row[2], row[3], row[4]) for row in self._rows(keyed)],
        )

    def pairs(self, control: str, arm: str) -> Clusters:
        """Correct answers of two arms that saw the same images."""
        other = predictions.alias()
        mine, theirs = (
            cast(case((one.c.class_index == outcomes.c.class_index, 1), else_=0), Double)
            for one in (predictions, other)
        )
        joined = predictions.join(outcomes, _outcome()).join(other, _same_image(other, arm))
        labelled = (predictions.c.arm == control, outcomes.c.class_index.is_not(None))
        query = select().select_from(joined).where(*self._mine(), *self._known, *labelled)
        alone = query.add_columns(mine, theirs, func.count()).where(predictions.c.unit == 0).group_by(mine, theirs)
        keyed = (
            query.add_columns(func.count(), func.sum(mine), func.sum(theirs))
            .where(predictions.c.unit != 0)
            .group_by(predictions.c.unit)
        )
        patterns = [(1.0, row[0], row[1], row[2]) for row in self._rows(alone)]
        patterns += [(row[0], row[1], row[2], 1) for row in self._rows(keyed)]
        table = np.array(patterns, float).reshape(-1, 4)
        counts = np.repeat(table[np.newaxis, :, :1], 2, axis=2)
        return Clusters(counts, table[np.newaxis, :, 1:3], table[:, 3])

    def span(self) -> tuple[float, float] | None:
        """When the first and the last outcome of the revision came."""
        query = self._labelled().add_columns(func.min(outcomes.c.at), func.max(outcomes.c.at))
        (row,) = self._rows(query)
        return None if row[0] is None else (float(row[0]), float(row[1]))

    def agreement(self, control: str, arm: str) -> tuple[int, int]:
        """Images that both arms classified, and how many of them alike."""
        other = predictions.alias()
        same = func.sum(case((predictions.c.class_index == other.c.class_index, 1), else_=0))
        query = (
            select(func.count(), same).select_from(predictions.join(other, _same_image(other, arm)))
            .where(*self._mine(), predictions.c.arm == control)
        )  # fmt: skip
        (row,) = self._rows(query)
        return int(row[0]), int(row[1] or 0)

    def classes(self) -> list[Row]:
        """(arm, true class, images, right) of every labelled class."""
        right = func.sum(case((predictions.c.class_index == outcomes.c.class_index, 1), else_=0))
        keys = (predictions.c.arm, outcomes.c.class_index)
        query = self._labelled(outcomes.c.class_index.is_not(None)).add_columns(*keys, func.count(), right)
        return self._rows(query.group_by(*keys).order_by(*keys))

    def calibration(self, bins: int) -> list[Row]:
        """(arm, bin, images, right, sum of confidences, sum of squared errors) by confidence."""
        hit = cast(case((predictions.c.class_index == outcomes.c.class_index, 1), else_=0), Double)
        confidence = predictions.c.confidence
        which = func.floor(confidence * bins)
        sums = (func.count(), func.sum(hit), func.sum(confidence), func.sum((confidence - hit) * (confidence - hit)))
        query = self._labelled(outcomes.c.class_index.is_not(None)).add_columns(predictions.c.arm, which, *sums)
        return self._rows(query.group_by(predictions.c.arm, which))

    def labels(self, until: float) -> list[Row]:
        """(arm, unit, images, labelled) of the answers given before `until`; unit 0 holds all single requests."""
        labelled = func.sum(case((outcomes.c.request_id.is_not(None), 1), else_=0))
        joined = predictions.outerjoin(outcomes, _outcome())
        keys = (predictions.c.arm, predictions.c.unit)
        query = select(*keys, func.count(), labelled).select_from(joined)
        query = query.where(*self._mine(), predictions.c.answered == 1, predictions.c.at < until)
        return self._rows(query.group_by(*keys))

    def newcomers(self) -> list[Row]:
        """(stage, arm, units) that were first seen at that stage: what the shares promise."""
        columns = predictions.c
        first = (
            select(columns.unit, func.min(columns.stage).label("stage"))
            .where(*self._mine(), columns.answered == 1, columns.unit != 0)
            .group_by(columns.unit)
            .subquery()
        )
        joined = predictions.join(first, and_(first.c.unit == columns.unit, first.c.stage == columns.stage))
        keyed = (
            select(columns.stage, columns.arm, func.count(columns.unit.distinct()))
            .select_from(joined)
            .where(*self._mine(), columns.answered == 1)
            .group_by(columns.stage, columns.arm)
        )
        alone = (
            select(columns.stage, columns.arm, func.count(columns.request_id.distinct()))
            .where(*self._mine(), columns.answered == 1, columns.unit == 0)
            .group_by(columns.stage, columns.arm)
        )
        return [*self._rows(keyed), *self._rows(alone)]

    def tally(self, measure: Measure) -> ByBucket:
        """Observations by arm and bucket, over all stages and writers."""
        keys = (tallies.c.arm, tallies.c.bucket)
        sums = (func.sum(tallies.c.count), func.sum(tallies.c.total), func.sum(tallies.c.squares))
        mine = (tallies.c.experiment == self._key[0], tallies.c.revision == self._key[1])
        query = select(*keys, *sums).where(*mine, tallies.c.measure == measure).group_by(*keys)
        return {(row[0], row[1]): Tally(int(row[2]), float(row[3]), float(row[4])) for row in self._rows(query)}

    def stage_answers(self, stage: int, arm: str) -> int:
        """Answers that an arm gave at one stage."""
        where = (tallies.c.experiment == self._key[0], tallies.c.revision == self._key[1], tallies.c.stage == stage)
        query = select(func.sum(tallies.c.count)).where(*where, tallies.c.arm == arm, tallies.c.measure == "latency")
        (row,) = self._rows(query)
        return int(row[0] or 0)

    def decisions(self) -> list[Decision]:
        """Every decision on the experiment, of all revisions, oldest first."""
        query = (
            select(*(decisions.c[name] for name in Decision._fields))
            .where(decisions.c.experiment == self._key[0])
            .order_by(decisions.c.at)
        )
        with self._engine.connect() as connection:
            return [Decision(*row) for row in connection.execute(query)]

    def _labelled(self, *conditions: ColumnElement[bool]) -> Select[Any]:
        joined = predictions.join(outcomes, _outcome())
        return select().select_from(joined).where(*self._mine(), *self._known, *conditions)

    def _mine(self) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
        return predictions.c.experiment == self._key[0], predictions.c.revision == self._key[1]

    def _rows(self, query: Any) -> list[Row]:
        with self._engine.connect() as connection:
            return list(connection.execute(query))


def unmatched(ledger: Ledger, before: float, most: int = 100) -> tuple[int, list[str]]:
    """Outcomes that came before that time and still have no prediction: how many, and some of their ids."""
    missing = predictions.c.request_id.is_(None)
    joined = outcomes.outerjoin(predictions, _outcome())
    with ledger.engine.connect() as connection:
        where = (missing, outcomes.c.at < before)
        count = connection.execute(select(func.count()).select_from(joined).where(*where)).scalar_one()
        ids = connection.execute(select(outcomes.c.request_id).select_from(joined).where(*where).limit(most))
        return int(count), list(ids.scalars())


def _outcome() -> ColumnElement[bool]:
    same = outcomes.c.request_id == predictions.c.request_id
    return and_(same, outcomes.c.position == predictions.c.position)


def _same_image(other: Any, arm: str) -> ColumnElement[bool]:
    keys = ("experiment", "request_id", "position", "revision")
    return and_(*(other.c[key] == predictions.c[key] for key in keys), other.c.arm == arm)


def _value(metric: Metric) -> ColumnElement[float]:
    if metric == "reward":
        return cast(outcomes.c.reward, Double)
    return cast(case((predictions.c.class_index == outcomes.c.class_index, 1), else_=0), Double)


def _clusters(alone: list[tuple[int, int, float, int]], keyed: list[tuple[int, int, int, int, float]]) -> Clusters:
    """`alone`: (stage, side, value, how many); `keyed`: (stage, side, unit, samples, sum)."""
    stages = {stage: index for index, stage in enumerate(sorted({row[0] for row in [*alone, *keyed]}))}
    units = {unit: len(alone) + index for index, unit in enumerate(sorted({row[2] for row in keyed}))}
    shape = (max(1, len(stages)), max(1, len(alone) + len(units)), 2)
    counts, sums, times = np.zeros(shape), np.zeros(shape), np.ones(shape[1])
    for index, (stage, side, value, many) in enumerate(alone):
        counts[stages[stage], index, side], sums[stages[stage], index, side], times[index] = 1, value, many
    for stage, side, unit, samples, total in keyed:
        counts[stages[stage], units[unit], side] = samples
        sums[stages[stage], units[unit], side] = total
    return Clusters(counts, sums, times)
