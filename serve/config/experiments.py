"""What an experiment is: its arms, how requests are assigned, what is compared and what must not happen."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from serve.config.base import NAME, FrozenModel

VERSION = "1"

Mode = Literal["split", "canary", "shadow", "paired", "bandit"]
Metric = Literal["accuracy", "reward"]


class Arm(FrozenModel):
    """One of the models that are compared: anything that clients could call by name."""

    name: str = Field(pattern=NAME)
    model: str
    version: str = Field("", description="empty: the one that is served")
    weight: float | None = Field(None, ge=0, le=1, description="share of the units; all or none of the arms say theirs")


class Guardrails(FrozenModel):
    """Limits that an arm is proved to break before it is taken out: the whole confidence sequence lies beyond them."""

    p99_ms: float | None = Field(None, gt=0)
    error_rate: float | None = Field(None, gt=0, lt=1)
    joules_per_image: float | None = Field(None, gt=0)
    loss: float | None = Field(None, gt=0, lt=1, description="how much worse than the control the metric may be")


class Experiment(FrozenModel):
    """A name that clients call; the first arm is the control."""

    name: str = Field(pattern=NAME, max_length=60)
    mode: Mode = "split"
    arms: tuple[Arm, ...] = Field(min_length=2, max_length=16)
    sticky: str = Field(
        "request",
        pattern=r"^(request|address|header:[a-z0-9\-]{1,60}|field:[A-Za-z0-9_]{1,60})$",
        description="unit of assignment: each request, the client's address, or a header (gRPC: metadata) or JSON field",
    )
    metric: Metric = Field(
        "accuracy",
        description="accuracy: feedback says the true label; reward: a number, which a bandit takes to lie in [0, 1]",
    )
    effect: float = Field(0.02, gt=0, description="the difference that matters; the analysis is sharpest there")
    alpha: float = Field(0.05, gt=0, le=0.2, description="chance of any false claim in the whole experiment")
    percent: float = Field(10, gt=0, le=100, description="shadow: share of requests that are copied to the other arms")
    ramp: tuple[float, ...] = Field((1, 5, 25, 50, 100), description="canary: percent of the second arm by stage")
    stage_seconds: float = Field(0, ge=0, description="canary: time after which the next stage begins; 0: by hand only")
    stage_samples: int = Field(100, ge=1, description="canary: answers of the second arm that a stage needs")
    label_seconds: float = Field(3600, gt=0, description="time within which most labels come")
    guardrails: Guardrails = Guardrails()
    webhook: str = Field("", repr=False, pattern=r"^(|https?://.+)$", description="told every decision by POST")

    @model_validator(mode="after")
    def _arms_fit_the_mode(self) -> Experiment:
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names):
            raise ValueError(f"arms named twice in {self.name}: {', '.join(sorted(names))}")
        given = [arm.weight for arm in self.arms if arm.weight is not None]
        if given and self.mode not in ("split", "bandit"):
            raise ValueError(f"{self.mode} arms have no weights; {self._instead()}")
        if given and (len(given) < len(self.arms) or abs(sum(given) - 1) > 1e-6):
            raise ValueError(f"weights of {self.name} must be given for every arm and sum to 1, not to {sum(given):g}")
        if self.mode == "canary" and len(self.arms) != 2:
            raise ValueError(f"a canary has two arms, the control and the candidate; {self.name} has {len(self.arms)}")
        if self.paired and self.metric == "reward":
            raise ValueError(f"a reward belongs to the one answer that was given; {self.mode} arms compare accuracy")
        if self.metric == "accuracy" and self.effect >= 1:
            raise ValueError(f"effect is a share of the images: below 1, not {self.effect:g}")
        if list(self.ramp) != sorted(set(self.ramp)) or not all(0 < one <= 100 for one in self.ramp):
            raise ValueError("ramp must be ascending percentages up to 100")
        return self

    def _instead(self) -> str:
        return {"canary": "its ramp says the shares"}.get(self.mode, "its control answers every request")

    @property
    def paired(self) -> bool:
        """Whether arms see the same images: the control answers, the others get copies."""
        return self.mode in ("shadow", "paired")

    @property
    def control(self) -> Arm:
        return self.arms[0]

    def weights(self, stage: int = 0) -> dict[str, float]:
        """Share of the requests that each arm answers at a stage."""
        names = [arm.name for arm in self.arms]
        if self.mode == "canary":
            share = self.ramp[min(stage, len(self.ramp) - 1)] / 100
            return {names[0]: 1 - share, names[1]: share}
        if self.paired:
            return {name: float(name == names[0]) for name in names}
        return {arm.name: arm.weight if arm.weight is not None else 1 / len(names) for arm in self.arms}
