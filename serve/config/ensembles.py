"""Models that are made of other models: ensembles and cascades."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field, model_validator

from models.ensembles.combine import Rule
from models.ensembles.views import View, check_views
from serve.config.base import FrozenModel, Named


class Voter(FrozenModel):
    """A model that is part of an ensemble or a cascade."""

    model: str = Field(description="name of the model; in a cascade also of an ensemble")
    views: tuple[View, ...] = Field(
        ("identity",),
        description="views of the image (test-time augmentation), which share the weight of the model equally",
    )
    calibrated: bool = Field(
        False,
        description="divide the logits by the temperature in the manifest (temperature scaling, Guo et al., 2017)",
    )

    @model_validator(mode="after")
    def _views_fit(self) -> Self:
        check_views(self.views)
        return self


class MemberConfig(Voter):
    """A member of an ensemble."""

    weight: float = Field(
        1.0, gt=0, allow_inf_nan=False, description="weight of the member's result, relative to the other weights"
    )


class EnsembleConfig(Named):
    """A model that combines the results of several models, which run at the same time."""

    kind: ClassVar[str] = "ensemble"

    members: tuple[MemberConfig, ...] = Field(min_length=1, description="models whose results are combined")
    combine: Rule = Field("mean_probability", description="rule that combines the results of the members")
    min_members: int = Field(1, ge=1, description="smallest number of member results; a request with fewer fails")
    deadline_ms: float | None = Field(
        None,
        gt=0,
        description="time to wait for member results, later ones are left out; null: until the deadline of the request",
    )

    @model_validator(mode="after")
    def _enough_members(self) -> Self:
        if self.min_members > len(self.members):
            raise ValueError(f"min_members is {self.min_members}, but there are {len(self.members)} members; lower it")
        return self


class StageConfig(Voter):
    """A model or ensemble of a cascade. Its result is final when it is confident enough; that of the last stage always is."""

    margin: float | None = Field(
        None,
        ge=0,
        le=1,
        description="the result is final when its two highest probabilities differ by at least this much",
    )
    entropy: float | None = Field(
        None, ge=0, description="the result is final when its entropy is at most this many nats"
    )

    @model_validator(mode="after")
    def _one_threshold(self) -> Self:
        if self.margin is not None and self.entropy is not None:
            raise ValueError("set margin or entropy of a stage, not both")
        return self

    @property
    def has_threshold(self) -> bool:
        """Whether uncertain images go on to the next stage."""
        return self.margin is not None or self.entropy is not None


class CascadeConfig(Named):
    """A model that runs a stage only on the images whose result in the previous stage was not confident enough."""

    kind: ClassVar[str] = "cascade"

    stages: tuple[StageConfig, ...] = Field(min_length=2, description="models or ensembles, the cheapest first")
    deadline_ms: float | None = Field(
        None, gt=0, description="time after which the latest result is final; null: until the deadline of the request"
    )

    @model_validator(mode="after")
    def _thresholds_decide(self) -> Self:
        *earlier, last = self.stages
        for stage in earlier:
            if not stage.has_threshold:
                raise ValueError(f"stage {stage.model} needs a margin or an entropy, else the next stage never runs")
        if last.has_threshold:
            raise ValueError(f"{last.model} is the last stage, whose result is always final: leave out its threshold")
        return self
