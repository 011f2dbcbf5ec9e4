"""The result of a run, and the rows of it that belong to one request."""

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
        """The best classes of every row. Computed once for the whole batch, since ranking row by row costs more."""
        return rank(self.logits, TOP)

    @cached_property
    def raw(self) -> bytes:
        """The logits' bytes, little-endian. Made once for the whole batch."""
        return self.logits.astype("<f4", copy=False).tobytes()


@dataclass(slots=True)
class Answer:
    """The rows [start, stop) of a run that answer one queue item. `members`: the member results of an ensemble or cascade."""

    run: BatchRun
    start: int
    stop: int
    members: tuple[MemberResult, ...] = ()

    @property
    def logits(self) -> NDArray[np.float32]:
        """Logits of these rows, FP32 [rows, classes]: a view of the run's."""
        return self.run.logits[self.start : self.stop]

    @property
    def raw(self) -> bytes:
        """Bytes of the logits, little-endian."""
        raw = self.run.raw
        width = len(raw) // self.run.size
        return raw[self.start * width : self.stop * width]

    @property
    def engine_seconds(self) -> float:
        """The share of these rows in the run's time."""
        run = self.run
        return (run.finished - run.started) * (self.stop - self.start) / run.size
