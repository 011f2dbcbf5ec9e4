"""What engines did since the last tick, from the metric pages of all processes of the node."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from serve.telemetry.definitions import ENGINE_SHARE, WORK
from serve.telemetry.mmap_store import Series

COUNTED = (WORK.name, ENGINE_SHARE.name)


class Model(NamedTuple):
    name: str
    version: str


class User(NamedTuple):
    """Whom a model worked for; both empty: clients that called it by name."""

    experiment: str
    arm: str


DIRECT = User("", "")
NOBODY = Model("", "")


@dataclass
class Totals:
    """Sums over processes, dead ones included: they only grow."""

    work: dict[tuple[Model, str], float] = field(default_factory=lambda: defaultdict(float))
    shares: dict[tuple[Model, User], float] = field(default_factory=lambda: defaultdict(float))

    @classmethod
    def of(cls, series: Iterable[Series]) -> Totals:
        totals = cls()
        for one in series:
            if one.metric not in COUNTED:
                continue
            labels, value = dict(one.labels), float(one.values[0])
            model = Model(labels["model"], labels["version"])
            if one.metric == WORK.name:
                totals.work[model, labels["device"]] += value
            else:
                totals.shares[model, User(labels["experiment"], labels["arm"])] += value
        return totals

    def since(self, before: Totals) -> Totals:
        """Growth; what shrank (a page was cleared) counts from zero."""
        return Totals(
            {key: _growth(value, before.work.get(key, 0.0)) for key, value in self.work.items()},
            {key: _growth(value, before.shares.get(key, 0.0)) for key, value in self.shares.items()},
        )

    def on(self, device: str) -> dict[Model, float]:
        """Work by model on one device."""
        return {model: amount for (model, where), amount in self.work.items() if where == device and amount > 0}

    def users(self, model: Model) -> dict[User, float]:
        return {user: amount for (whose, user), amount in self.shares.items() if whose == model and amount > 0}


def _growth(now: float, before: float) -> float:
    return now - before if now >= before else now
