"""The endpoints of an experiment's arms, and whether they can be compared."""

from __future__ import annotations

from collections.abc import Mapping

from convoy.errors import ConfigError, InvalidInput
from models.artifact import Manifest
from serve.config.base import TENSOR_SUFFIX
from serve.config.experiments import Arm, Experiment
from serve.config.schema import Catalog
from serve.ensembles.factory import compositions_of, stages_of
from serve.gateway.endpoints import Endpoint


def check_arms(catalog: Catalog, manifests: Mapping[str, Manifest]) -> None:
    """Raises ConfigError for arms with different classes, which cannot be compared, before any model is loaded."""
    ensembles = {ensemble.name: ensemble for ensemble in catalog.ensembles}
    first_members = {
        composition.name: stages_of(composition, ensembles)[0][1].members[0].model
        for composition in compositions_of(catalog)
    }

    def labels(arm: Arm) -> tuple[str, ...]:
        return manifests[first_members.get(arm.model, arm.model.removesuffix(TENSOR_SUFFIX))].labels

    for experiment in catalog.experiments:
        for arm in experiment.arms[1:]:
            if labels(arm) != labels(experiment.control):
                raise ConfigError(
                    f"arms of {experiment.name} have different labels: {experiment.control.model} and {arm.model}"
                )


def arms_of(definition: Experiment, served: Mapping[str, Endpoint]) -> dict[str, Endpoint]:
    """The endpoint of each arm, by arm name. Raises InvalidInput when one does not serve, or they cannot be compared."""
    if definition.name in served:
        raise InvalidInput(f"{definition.name!r} is a model; give the experiment a name of its own")
    absent = [arm.model for arm in definition.arms if arm.model not in served]
    if absent:
        raise InvalidInput(f"an arm's model is not served here: {absent[0][:100]}")
    arms = {arm.name: served[arm.model] for arm in definition.arms}
    if len({arm.labels for arm in arms.values()}) > 1:
        raise InvalidInput(f"arms of {definition.name} have different labels and cannot be compared")
    if len({arm.form for arm in arms.values()}) > 1:
        raise InvalidInput(f"some arms of {definition.name} take images and some take tensors")
    for arm in definition.arms:
        version = arms[arm.name].version
        if arm.version not in ("", version):
            raise InvalidInput(f"{arm.model} has no version {arm.version}; the version here is {version}")
    return arms
