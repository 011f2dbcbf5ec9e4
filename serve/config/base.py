"""The base classes of the configuration."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

NAME = r"^[a-z0-9][a-z0-9_.\-]*$"
VERSION = r"^[0-9]+$"
TENSOR_SUFFIX = "-tensor"  # NAME-tensor takes the float input tensor of the model NAME instead of images


class FrozenModel(BaseModel):
    """An immutable model that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Named(FrozenModel):
    """The base of models, ensembles, cascades and experiments: clients call them by name."""

    name: str = Field(pattern=NAME, description="name by which clients call it")
    version: str = Field("1", pattern=VERSION, description="version that clients see and may ask for")

    @model_validator(mode="after")
    def _name_is_not_reserved(self) -> Self:
        if self.name.endswith(TENSOR_SUFFIX):
            raise ValueError(f"names ending in {TENSOR_SUFFIX} are reserved for the tensor form of a model; rename it")
        return self
