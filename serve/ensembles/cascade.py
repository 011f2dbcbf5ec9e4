"""A cascade: stages run one after the other, and only images with a confidence below the threshold go to the next stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np

from convoy.errors import ConvoyError
from models.ensembles.combine import Scores
from models.ensembles.confidence import Measure, unsure
from serve.batching.member_report import MemberResult
from serve.ensembles.ensemble import Ensemble, EnsembleResult
from serve.ensembles.multi_view import Views


@dataclass(frozen=True)
class Stage:
    """An ensemble, and the confidence below which an image goes to the next stage. The last stage's threshold has no effect."""

    name: str
    ensemble: Ensemble
    measure: Measure = "margin"
    threshold: float = 0.0


class Cascade:
    """Stages in order. Lives on one event loop."""

    def __init__(
        self,
        stages: Sequence[Stage],
        deadline: float = float("inf"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`deadline`: seconds from the start of `run`; the last answer before it counts."""
        self.stages = tuple(stages)
        self._deadline = deadline
        self._clock = clock

    @property
    def waiting_rows(self) -> int:
        """Rows of this cascade in the members' queues, over all stages."""
        return sum(stage.ensemble.waiting_rows for stage in self.stages)

    def admit(self, images: int, deadline: float, priority: int = 0, ready_in: float = 0.0) -> None:
        """Arguments as of `Batcher.admit`. Raises the first stage's error when no stage would take the images."""
        until = min(deadline, self._clock() + self._deadline)
        refusals: list[ConvoyError] = []
        for stage in self.stages:
            try:
                stage.ensemble.admit(images, until, priority, ready_in)
                return
            except ConvoyError as error:
                refusals.append(error)
        raise refusals[0]

    @contextmanager
    def arrival(self, images: int, deadline: float, priority: int = 0, ready_in: float = 0.0) -> Iterator[None]:
        """As `Ensemble.arrival`, of the first stage that takes the images."""
        until = min(deadline, self._clock() + self._deadline)
        refusals: list[ConvoyError] = []
        with ExitStack() as stack:
            for stage in self.stages:
                try:
                    stack.enter_context(stage.ensemble.arrival(images, until, priority, ready_in))
                    break
                except ConvoyError as error:
                    refusals.append(error)
            else:
                raise refusals[0]
            yield

    async def run(self, views: Views, deadline: float, priority: int = 0) -> EnsembleResult:
        """Runs stage after stage; `deadline` in monotonic seconds.

        When a stage fails, its images go to the next stage, and answers of earlier stages are kept.
        """
        begun = self._clock()
        until = min(deadline, begun + self._deadline)
        scores: Scores | ConvoyError | None = None
        started: list[float] = []
        members: list[MemberResult] = []
        images_by_stage: list[tuple[str, int]] = []
        undecided = np.ones(len(views), np.bool_)
        for stage in self.stages:
            staged = views if undecided.all() else views.of(undecided)
            result = await stage.ensemble.run(staged, until, priority)
            started.append(result.started)
            members += result.members
            images_by_stage.append((stage.name, len(staged)))
            if isinstance(result.scores, ConvoyError):
                scores = result.scores if scores is None else scores
            else:
                scores = result.scores.copy() if not isinstance(scores, np.ndarray) else scores
                scores[undecided] = result.scores
                undecided[undecided] = unsure(result.scores, stage.measure, stage.threshold)
            if not undecided.any() or self._clock() >= until:
                break
        assert scores is not None, "a cascade has stages"
        return EnsembleResult(scores, tuple(members), min(started), tuple(images_by_stage))
