"""Models that are made of other models: ensembles and cascades."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field, model_validator

from models.ensembles.combine import Rule
from models.ensembles.views import View, check_views
from serve.config.base import FrozenModel, Named


class Voter(FrozenModel):
    """A model that takes part in another one."""

    model: str
    views: tuple[View, ...] = Field(("identity",), description="looks it takes, from left to right; each one votes")
    calibrated: bool = Field(False, description="divide its logits by the temperature of its manifest")

    @model_validator(mode="after")
    def _views_fit(self) -> Self:
        check_views(self.views)
        return self


class MemberConfig(Voter):
    """A model that votes in an ensemble."""

    weight: float = Field(1.0, gt=0, allow_inf_nan=False, description="how much it counts; only proportions matter")


class EnsembleConfig(Named):
    """A model made of models that answer at the same time."""

    kind: ClassVar[str] = "ensemble"

    members: tuple[MemberConfig, ...] = Field(min_length=1)
    combine: Rule = "mean_probability"
    min_members: int = Field(1, ge=1, description="fewer answers fail the request")
    deadline_ms: float | None = Field(
        None, gt=0, description="what has answered by then is combined; null: the request's"
    )

    @model_validator(mode="after")
    def _enough_members(self) -> Self:
        if self.min_members > len(self.members):
            raise ValueError(f"min_members is {self.min_members}, but there are {len(self.members)} members")
        return self


class StageConfig(Voter):
    """A model or ensemble of a cascade. Its answer is kept when it is sure enough; the last one's always."""

    margin: float | None = Field(
        None, ge=0, le=1, description="keep when the two best probabilities are this far apart"
    )
    entropy: float | None = Field(None, ge=0, description="keep when the entropy is at most this, in nats")

    @model_validator(mode="after")
    def _one_threshold(self) -> Self:
        if self.margin is not None and self.entropy is not None:
            raise ValueError("a stage is judged by margin or by entropy, not by both")
        return self

    @property
    def has_threshold(self) -> bool:
        return self.margin is not None or self.entropy is not None


class CascadeConfig(Named):
    """A model that asks the next network only for the images of which the one before was unsure."""

    kind: ClassVar[str] = "cascade"

    stages: tuple[StageConfig, ...] = Field(min_length=2)
    deadline_ms: float | None = Field(None, gt=0, description="the last answer by then counts; null: the request's")

    @model_validator(mode="after")
    def _thresholds_decide(self) -> Self:
        *before, last = self.stages
        for stage in before:
            if not stage.has_threshold:
                raise ValueError(
                    f"stage {stage.model} needs a margin or an entropy, else the next stage is never asked"
                )
        if last.has_threshold:
            raise ValueError(f"{last.model} is the last stage: nothing comes after it, leave out its threshold")
        return self
