"""The result of a batch, and the part of it that belongs to one request."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from serve.batching.member_report import MemberResult
from serve.batching.top_k import TOP, Ranking, rank


@dataclass(frozen=True)
class BatchRun:
    """One run of an engine: logits [size, classes] of all rows, and when it began and ended (monotonic seconds)."""

    logits: NDArray[np.float32]
    size: int
    started: float
    finished: float

    @cached_property
    def ranking(self) -> Ranking:
        """Best classes of every row, worked out once for the whole batch when first asked for."""
        return rank(self.logits, TOP)


@dataclass(frozen=True, slots=True)
class Answer:
    """Where an entry's rows are in a run. `parts`: who took part, when the model is made of others."""

    run: BatchRun
    start: int
    stop: int
    parts: tuple[MemberResult, ...] = ()

    @property
    def logits(self) -> NDArray[np.float32]:
        return self.run.logits[self.start : self.stop]

    @property
    def engine_seconds(self) -> float:
        """Of the run's time the part of these rows."""
        run = self.run
        return (run.finished - run.started) * (self.stop - self.start) / run.size
