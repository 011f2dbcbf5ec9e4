"""The record of a request: a fixed-size numpy row, written by a worker and folded by the parent."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtest.wire.calls import Call

# Times are seconds from the start of the run; `first` is 0 if no byte arrived. `labelled` counts rows with a true label.
RECORD = np.dtype(
    [
        ("index", "<u8"),
        ("scheduled", "<f8"),
        ("sent", "<f8"),
        ("written", "<f8"),
        ("first", "<f8"),
        ("done", "<f8"),
        ("outcome", "<u2"),
        ("traffic", "<u2"),
        ("arm", "<u2"),
        ("labelled", "<u2"),
        ("correct", "<u2"),
        ("rows", "<u2"),
        ("waited", "u1"),
        ("feedback", "u1"),
        ("pad", "<u2"),
    ]
)
_PACK = struct.Struct("<QdddddHHHHHHBBH")
Records = NDArray[Any]


@dataclass
class Judged:
    """The content of an answer: numbers of labelled and of correct rows, and its arm."""

    labelled: int = 0
    correct: int = 0
    arm: str = ""


NOTHING = Judged()


@dataclass(frozen=True)
class WorkerMessage:
    """A worker's message to the parent: its new records and its own figures since the start of the run.

    `arms` holds all names so far; arm number n is `arms[n]`. `failure_texts` holds the first message of each outcome that
    is a failure. `starved_s` is the time it was runnable without a core, `ran` how often it was scheduled. `unsent` is True
    if requests that were due were dropped because the worker was too far behind.
    """

    worker: int
    records: bytes
    arms: tuple[str, ...]
    stages_ms: dict[str, tuple[float, int]]
    failure_texts: dict[int, str]
    cpu_s: float
    starved_s: float
    ran: int
    in_flight: int
    max_in_flight: int
    issued: int
    unsent: bool
    last: bool = False


@dataclass
class Recorder:
    """Collects records between two messages."""

    start: float
    arms: dict[str, int] = field(default_factory=lambda: {"": 0})
    _rows: bytearray = field(default_factory=bytearray)

    def add(self, call: Call, outcome: int, done: float, judged: Judged) -> None:
        """Packs the record of a call that ended at `done`."""
        arm = self.arms.setdefault(judged.arm, len(self.arms))
        start = self.start
        self._rows += _PACK.pack(
            call.index,
            call.scheduled - start,
            call.sent - start,
            (call.written or call.sent) - start,
            call.first - start if call.first else 0.0,
            done - start,
            outcome,
            call.traffic,
            arm,
            judged.labelled,
            judged.correct,
            max(1, len(call.request.expected)),
            call.waited,
            call.is_feedback,
            0,
        )

    def take(self) -> bytes:
        """The records since the last call."""
        rows, self._rows = bytes(self._rows), bytearray()
        return rows


def parse_records(rows: bytes) -> Records:
    """The records as a read-only array of `RECORD`."""
    return np.frombuffer(rows, RECORD)
