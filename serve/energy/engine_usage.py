"""Engine work and engine time of answered requests, from the totals of the node's metrics files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from serve.telemetry.definitions import ENGINE_SHARE, WORK, Totals

COUNTED = (WORK.name, ENGINE_SHARE.name)


class Model(NamedTuple):
    """A served model; both fields are labels of its metrics."""

    name: str
    version: str


class User(NamedTuple):
    """The experiment and arm that a model worked for; both empty: clients that called the model by its name."""

    experiment: str
    arm: str


DIRECT = User("", "")
NOBODY = Model("", "")  # the labels of energy that is not attributed to a model


@dataclass
class EngineUsage:
    """Unit-seconds of engines by model and device, and engine seconds of answered requests by model and user."""

    work: dict[tuple[Model, str], float] = field(default_factory=lambda: defaultdict(float))
    shares: dict[tuple[Model, User], float] = field(default_factory=lambda: defaultdict(float))

    @classmethod
    def from_totals(cls, totals: Totals) -> EngineUsage:
        """The usage counted since the server started, processes that have ended included."""
        usage = cls()
        for key, values in totals.get(WORK.name, {}).items():
            labels = dict(key)
            usage.work[_model(labels), labels["device"]] += float(values[0])
        for key, values in totals.get(ENGINE_SHARE.name, {}).items():
            labels = dict(key)
            usage.shares[_model(labels), User(labels["experiment"], labels["arm"])] += float(values[0])
        return usage

    def since(self, before: EngineUsage) -> EngineUsage:
        """Growth since `before`. A total that shrank, since its metrics file was removed, counts from zero."""
        return EngineUsage(
            {key: _growth(value, before.work.get(key, 0.0)) for key, value in self.work.items()},
            {key: _growth(value, before.shares.get(key, 0.0)) for key, value in self.shares.items()},
        )

    def on(self, device: str) -> dict[Model, float]:
        """Unit-seconds by model on one device."""
        return {model: amount for (model, used), amount in self.work.items() if used == device and amount > 0}

    def users(self, model: Model) -> dict[User, float]:
        """Engine seconds of a model's answered requests by user."""
        return {user: amount for (owner, user), amount in self.shares.items() if owner == model and amount > 0}


def _model(labels: Mapping[str, str]) -> Model:
    return Model(labels["model"], labels["version"])


def _growth(now: float, before: float) -> float:
    return now - before if now >= before else now
