"""The definition of an experiment: arms, assignment of requests, metric, and guardrails."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from serve.config.base import NAME, FrozenModel

VERSION = "1"  # of every experiment in metadata and metrics; its definitions are numbered as revisions of the ledger

Mode = Literal["split", "canary", "shadow", "paired", "bandit"]
Metric = Literal["accuracy", "reward"]


class Arm(FrozenModel):
    """One of the compared models: a model, an ensemble or a cascade."""

    name: str = Field(pattern=NAME, description="name of the arm in answers and reports")
    model: str = Field(description="name of a model, an ensemble or a cascade")
    version: str = Field("", description="version of the model; empty: the served one")
    weight: float | None = Field(
        None, ge=0, le=1, description="share of the units of assignment; set it for all arms or for none"
    )


class Guardrails(FrozenModel):
    """Limits of an arm. An arm is stopped when its whole confidence sequence lies beyond a limit."""

    p99_ms: float | None = Field(None, gt=0, description="largest 99th percentile of the latency")
    error_rate: float | None = Field(None, gt=0, lt=1, description="largest share of requests that fail")
    joules_per_image: float | None = Field(None, gt=0, description="largest energy of an image")
    loss: float | None = Field(
        None, gt=0, lt=1, description="largest amount by which the metric is below the control's"
    )


class Experiment(FrozenModel):
    """An experiment, which clients call by its name like a model. The first arm is the control."""

    name: str = Field(pattern=NAME, max_length=60, description="name by which clients call the experiment")
    mode: Mode = Field(
        "split",
        description="split: fixed shares; canary: the share of the second arm grows; bandit: the better arm gets more; "
        "shadow and paired: the control answers, the other arms classify copies of some or of all requests",
    )
    arms: tuple[Arm, ...] = Field(
        min_length=2, max_length=16, description="the compared models; the first is the control"
    )
    sticky: str = Field(
        "request",
        pattern=r"^(request|address|header:[a-z0-9\-]{1,60}|field:[A-Za-z0-9_]{1,60})$",
        description="unit of assignment: each request, the client's address, or a header (gRPC: metadata) or JSON field",
    )
    metric: Metric = Field(
        "accuracy",
        description="accuracy: feedback gives the true label; reward: feedback gives a number, for a bandit in [0, 1]",
    )
    effect: float = Field(
        0.02, gt=0, description="smallest difference that matters; the analysis is tuned to detect it"
    )
    alpha: float = Field(0.05, gt=0, le=0.2, description="probability of any false claim in the whole experiment")
    percent: float = Field(
        10, gt=0, le=100, description="shadow: percentage of requests that are copied to the other arms"
    )
    ramp: tuple[float, ...] = Field(
        (1, 5, 25, 50, 100), description="canary: percentage of requests for the second arm, by stage"
    )
    stage_seconds: float = Field(
        0, ge=0, description="canary: shortest duration of a stage; 0: stages are advanced by hand"
    )
    stage_samples: int = Field(100, ge=1, description="canary: smallest number of answers of the second arm in a stage")
    label_seconds: float = Field(3600, gt=0, description="time within which most labels arrive")
    guardrails: Guardrails = Field(Guardrails(), description="limits that stop an arm")
    webhook: str = Field(
        "", repr=False, pattern=r"^(|https?://.+)$", description="URL to which every decision is sent by POST"
    )

    @model_validator(mode="after")
    def _arms_fit_the_mode(self) -> Experiment:
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names):
            raise ValueError(
                f"arms named twice in {self.name}: {', '.join(sorted({name for name in names if names.count(name) > 1}))}"
            )
        weights = [arm.weight for arm in self.arms if arm.weight is not None]
        if weights and self.mode not in ("split", "bandit"):
            raise ValueError(f"{self.mode} arms have no weights: {self._shares_of_mode()}; leave weight out")
        if weights and (len(weights) < len(self.arms) or abs(sum(weights) - 1) > 1e-6):
            raise ValueError(f"weights of {self.name} must be set for every arm and sum to 1, not to {sum(weights):g}")
        if self.mode == "canary" and len(self.arms) != 2:
            raise ValueError(
                f"a canary needs two arms, the control and the candidate; {self.name} has {len(self.arms)}"
            )
        if self.paired and self.metric == "reward":
            raise ValueError(
                f"{self.mode} arms cannot compare rewards, which rate only the answer that was sent; use accuracy"
            )
        if self.metric == "accuracy" and self.effect >= 1:
            raise ValueError(f"effect is a difference of accuracies and must be less than 1, not {self.effect:g}")
        if list(self.ramp) != sorted(set(self.ramp)) or not all(0 < percent <= 100 for percent in self.ramp):
            raise ValueError("ramp must list ascending percentages above 0 and up to 100")
        return self

    def _shares_of_mode(self) -> str:
        return {"canary": "the ramp sets the shares"}.get(self.mode, "the control answers every request")

    @property
    def paired(self) -> bool:
        """Whether all arms get the same images: the control answers the client, the other arms get copies."""
        return self.mode in ("shadow", "paired")

    @property
    def control(self) -> Arm:
        """The first arm: the others are compared with it."""
        return self.arms[0]

    def weights(self, stage: int = 0) -> dict[str, float]:
        """Share of the requests (0..1) that each arm answers at a stage of the ramp."""
        names = [arm.name for arm in self.arms]
        if self.mode == "canary":
            share = self.ramp[min(stage, len(self.ramp) - 1)] / 100
            return {names[0]: 1 - share, names[1]: share}
        if self.paired:
            return {name: float(name == names[0]) for name in names}
        return {arm.name: arm.weight if arm.weight is not None else 1 / len(names) for arm in self.arms}
