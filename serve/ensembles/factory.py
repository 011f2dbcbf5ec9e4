"""Builds ensembles and cascades from their configuration and the served models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from convoy.errors import ConfigError
from models.artifact import Manifest
from serve.batching.line import MemberQueue
from serve.config.ensembles import CascadeConfig, EnsembleConfig, MemberConfig, StageConfig, Voter
from serve.config.schema import Catalog
from serve.ensembles.cascade import Cascade, Stage
from serve.ensembles.ensemble import Ensemble, Member
from serve.ensembles.multi_view import Geometry

CompositionConfig = EnsembleConfig | CascadeConfig


class Served(Protocol):
    """The properties of a served model that a composition needs."""

    @property
    def version(self) -> str:
        """The version that clients see."""
        ...

    @property
    def manifest(self) -> Manifest:
        """The manifest of its artifact."""
        ...

    @property
    def batcher(self) -> MemberQueue:
        """The queue of its engine."""
        ...


def compositions_of(catalog: Catalog) -> list[CompositionConfig]:
    """The ensembles and cascades of a catalog."""
    return [*catalog.ensembles, *catalog.cascades]


def stages_of(config: CompositionConfig, ensembles: Mapping[str, EnsembleConfig]) -> list[tuple[str, EnsembleConfig]]:
    """The name and the ensemble of each stage. An ensemble has a single stage; a model counts as an ensemble of one."""
    if isinstance(config, EnsembleConfig):
        return [(config.name, config)]
    return [
        (f"{position}-{stage.model}", ensembles.get(stage.model) or _alone(stage))
        for position, stage in enumerate(config.stages, 1)
    ]


def _alone(stage: StageConfig) -> EnsembleConfig:
    member = MemberConfig(model=stage.model, views=stage.views, calibrated=stage.calibrated)
    return EnsembleConfig(name=stage.model, members=(member,))


def check_compositions(catalog: Catalog, manifests: Mapping[str, Manifest]) -> None:
    """Raises ConfigError for the first ensemble or cascade that cannot be built. `manifests` by model."""
    ensembles = {ensemble.name: ensemble for ensemble in catalog.ensembles}
    for config in compositions_of(catalog):
        check_composition(config, ensembles, manifests)


def check_composition(
    config: CompositionConfig, ensembles: Mapping[str, EnsembleConfig], manifests: Mapping[str, Manifest]
) -> None:
    """Raises ConfigError when members differ in labels, have fewer than two classes or lack a temperature."""
    members = [member for _, ensemble in stages_of(config, ensembles) for member in ensemble.members]
    first = members[0].model
    for member in members:
        manifest = manifests[member.model]
        if manifest.labels != manifests[first].labels:
            raise ConfigError(f"{config.name}: {first} and {member.model} have different labels and cannot be combined")
        temperature_of(config.name, member, manifest)
    if len(manifests[first].labels) < 2:
        raise ConfigError(f"{config.name}: {first} has fewer than two classes: there is nothing to combine")


def temperature_of(name: str, member: Voter, manifest: Manifest) -> float:
    """The divisor of the member's logits. Raises ConfigError when `calibrated` is set and no temperature was fitted."""
    if not member.calibrated:
        return 1.0
    if not manifest.calibration:
        raise ConfigError(
            f"{name}: the manifest of {member.model} has no temperature; fit one on a validation set with: "
            f"python -m models.calibrate {member.model}, or leave out calibrated"
        )
    return float(manifest.calibration["temperature"])


@dataclass(frozen=True)
class Composed:
    """An ensemble or cascade, and the geometries of its members."""

    composition: Ensemble | Cascade
    geometries: tuple[Geometry, ...]


def compose(
    config: CompositionConfig, ensembles: Mapping[str, EnsembleConfig], served: Mapping[str, Served]
) -> Composed:
    """Builds an ensemble or cascade over the served models. Raises ConfigError as `check_composition` does."""
    check_composition(config, ensembles, {name: model.manifest for name, model in served.items()})
    geometries: list[Geometry] = []
    stages = [(name, _ensemble(stage, served, geometries)) for name, stage in stages_of(config, ensembles)]
    if isinstance(config, EnsembleConfig):
        return Composed(stages[0][1], tuple(geometries))
    cascade = Cascade(
        [_stage(stage, name, ensemble) for stage, (name, ensemble) in zip(config.stages, stages, strict=True)],
        _seconds(config.deadline_ms),
    )
    return Composed(cascade, tuple(geometries))


def _ensemble(config: EnsembleConfig, served: Mapping[str, Served], geometries: list[Geometry]) -> Ensemble:
    members = [_member(config.name, member, served[member.model], geometries) for member in config.members]
    return Ensemble(members, config.combine, config.min_members, _seconds(config.deadline_ms))


def _member(name: str, config: MemberConfig, served: Served, geometries: list[Geometry]) -> Member:
    geometry = Geometry.of(served.manifest.preprocessing, config.views)
    if geometry not in geometries:
        geometries.append(geometry)
    temperature = temperature_of(name, config, served.manifest)
    position = geometries.index(geometry)
    return Member(
        config.model, served.version, served.batcher, position, config.weight, temperature, geometry.view_count
    )


def _stage(config: StageConfig, name: str, ensemble: Ensemble) -> Stage:
    if config.entropy is not None:
        return Stage(name, ensemble, "entropy", config.entropy)
    return Stage(name, ensemble, "margin", config.margin or 0.0)


def _seconds(milliseconds: float | None) -> float:
    return float("inf") if milliseconds is None else milliseconds / 1000
