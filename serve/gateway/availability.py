"""The declared names that do not serve, with reasons: a pure function of the catalog and of each model's state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from convoy.errors import ConvoyError, NotFound, NotReady
from convoy.wire.oip_metadata import State
from serve.config.base import TENSOR_SUFFIX
from serve.config.ensembles import CascadeConfig, EnsembleConfig
from serve.config.experiments import Experiment

Composition = EnsembleConfig | CascadeConfig | Experiment


@dataclass(frozen=True)
class Absence:
    """The reason why a name does not serve. `model`: the model to load or repair. `unloaded`: true if a user unloaded it."""

    state: State
    reason: str
    model: str
    unloaded: bool = False

    def error(self, name: str) -> ConvoyError:
        """The error for a caller of the name: NotFound when it was unloaded, NotReady otherwise."""
        if self.unloaded:
            remedy = f"POST /v2/repository/models/{self.model}/load"
            return NotFound(f"model {name!r} is not loaded ({self.reason}); {remedy}")
        return NotReady(f"model {name!r} is not available: {self.reason}")


def loading(model: str) -> Absence:
    """A model whose load has not ended yet."""
    return Absence("LOADING", "being loaded; retry", model)


def failed(model: str, reason: str) -> Absence:
    """A model that could not be loaded."""
    return Absence("UNAVAILABLE", reason, model)


def unloaded(model: str, under_way: bool = False) -> Absence:
    """A model that was unloaded on request, or is being unloaded."""
    return Absence("UNLOADING" if under_way else "UNAVAILABLE", "unloaded", model, unloaded=True)


def absences(
    compositions: Iterable[Composition], models: Mapping[str, Absence], problems: Mapping[str, str]
) -> dict[str, Absence]:
    """Every declared name that does not serve, with the reason.

    Args:
        compositions: ensembles, then cascades, then experiments, since each may have earlier ones as members.
        models: the models that do not serve. Both their forms are absent.
        problems: why a composition could not be built although its members serve, by name.
    """
    absent = {form: absence for name, absence in models.items() for form in (name, name + TENSOR_SUFFIX)}
    for composition in compositions:
        name = composition.name
        missing = next((member for member in members_of(composition) if member in absent), None)
        if missing is not None:
            cause = absent[missing]
            absent[name] = replace(cause, reason=f"it needs {missing}: {cause.reason}")
        elif name in problems:
            absent[name] = failed(name, problems[name])
    return absent


def members_of(composition: Composition) -> tuple[str, ...]:
    """The names of the endpoints that it calls."""
    if isinstance(composition, EnsembleConfig):
        return tuple(member.model for member in composition.members)
    if isinstance(composition, CascadeConfig):
        return tuple(stage.model for stage in composition.stages)
    return tuple(arm.model for arm in composition.arms)
