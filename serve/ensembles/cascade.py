"""A cascade at work: each stage answers, and only the images of which it was unsure go on to the next one."""

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
from serve.ensembles.ensemble import Ensemble, Poll
from serve.ensembles.multi_view import Views


@dataclass(frozen=True)
class Stage:
    """Who answers, and when that is not enough; of the last stage the threshold has no effect."""

    name: str
    ensemble: Ensemble
    measure: Measure = "margin"
    threshold: float = 0.0


class Cascade:
    """Stages in their order. `deadline` is in seconds from the question: the last answer by then counts."""

    def __init__(
        self,
        stages: Sequence[Stage],
        deadline: float = float("inf"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stages = tuple(stages)
        self._deadline = deadline
        self._clock = clock

    @property
    def waiting_rows(self) -> int:
        """Rows in the members' queues that wait because of this cascade, of all stages."""
        return sum(stage.ensemble.waiting_rows for stage in self.stages)

    def admit(self, images: int, deadline: float, priority: int = 0, ready_in: float = 0.0) -> None:
        """Raises what the first stage raises where none would take so many images. As `Batcher.admit`."""
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
        """As of `Ensemble`, by the first stage that would take the images: one that refuses is passed over."""
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

    async def poll(self, looks: Views, deadline: float, priority: int = 0) -> Poll:
        """Asks stage after stage; `deadline` in monotonic seconds.

        A stage that fails changes nothing: what is open goes on to the next one, and an earlier stage's answer stands.
        """
        begun = self._clock()
        until = min(deadline, begun + self._deadline)
        scores: Scores | ConvoyError | None = None
        started: list[float] = []
        parts: list[MemberResult] = []
        asked: list[tuple[str, int]] = []
        going_on = np.ones(len(looks), np.bool_)
        for stage in self.stages:
            poll = await stage.ensemble.poll(looks if going_on.all() else looks.of(going_on), until, priority)
            started.append(poll.started)
            parts += poll.parts
            asked.append((stage.name, int(going_on.sum())))
            if isinstance(poll.scores, ConvoyError):
                scores = poll.scores if scores is None else scores
            else:
                scores = poll.scores.copy() if not isinstance(scores, np.ndarray) else scores
                scores[going_on] = poll.scores
                going_on[going_on] = unsure(poll.scores, stage.measure, stage.threshold)
            if not going_on.any() or self._clock() >= until:
                break
        assert scores is not None, "a cascade has stages"
        return Poll(scores, tuple(parts), min(started), tuple(asked))
