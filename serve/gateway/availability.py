"""Which names that clients may call do not answer, and why: a pure function of what is wanted and of each model's state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from convoy.errors import ConvoyError, NotFound, NotReady
from convoy.wire.oip_metadata import State
from serve.config.base import TENSOR_SUFFIX
from serve.config.ensembles import CascadeConfig, EnsembleConfig
from serve.config.experiments import Experiment

MadeOfModels = EnsembleConfig | CascadeConfig | Experiment


@dataclass(frozen=True)
class Absence:
    """Why a name does not answer. `model` is the one to load or to repair; `unloaded`: somebody asked for it."""

    state: State
    reason: str
    model: str
    unloaded: bool = False

    def error(self, name: str) -> ConvoyError:
        """What a caller of the name is answered."""
        if self.unloaded:
            remedy = f"POST /v2/repository/models/{self.model}/load"
            return NotFound(f"model {name!r} is not loaded ({self.reason}); {remedy}")
        return NotReady(f"model {name!r} is not available: {self.reason}")


def loading(model: str) -> Absence:
    return Absence("LOADING", "being loaded; retry", model)


def failed(model: str, reason: str) -> Absence:
    return Absence("UNAVAILABLE", reason, model)


def unloaded(model: str, under_way: bool = False) -> Absence:
    return Absence("UNLOADING" if under_way else "UNAVAILABLE", "unloaded", model, unloaded=True)


def absences(
    made: Iterable[MadeOfModels], models: Mapping[str, Absence], problems: Mapping[str, str]
) -> dict[str, Absence]:
    """Every name that does not answer: `models` in both their forms, and what is made of them.

    `made`: ensembles before cascades before experiments, as each may be made of those before. `problems` says why one could
    not be made although its members serve.
    """
    absent = {form: absence for name, absence in models.items() for form in (name, name + TENSOR_SUFFIX)}
    for one in made:
        missing = next((name for name in parts_of(one) if name in absent), None)
        if missing is not None:
            cause = absent[missing]
            absent[one.name] = replace(cause, reason=f"it needs {missing}: {cause.reason}")
        elif one.name in problems:
            absent[one.name] = failed(one.name, problems[one.name])
    return absent


def parts_of(made: MadeOfModels) -> tuple[str, ...]:
    """The names that it asks."""
    if isinstance(made, EnsembleConfig):
        return tuple(member.model for member in made.members)
    if isinstance(made, CascadeConfig):
        return tuple(stage.model for stage in made.stages)
    return tuple(arm.model for arm in made.arms)
