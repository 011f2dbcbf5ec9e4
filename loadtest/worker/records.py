"""A request's record: 64 bytes of a numpy row, filled by the workers and folded by the parent."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtest.wire.calls import Call

# Times are seconds from the start of the run; `first` is 0 where no byte came. `labelled` rows had a known label.
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
    """What an answer's content said: labelled and correct rows, and its arm."""

    labelled: int = 0
    correct: int = 0
    arm: str = ""


NOTHING = Judged()


@dataclass(frozen=True)
class Told:
    """A worker's message: its new records, and how it fares. `arms` are all names so far; number n is arms[n].

    `said` is the first text of each kind of failure.

    `starved_s` is the time in which it could have run but was given no core, and `ran` how often it was given one;
    `unsent` says that requests were due and were given up because it was too far behind.
    """

    worker: int
    records: bytes
    arms: tuple[str, ...]
    stages_ms: dict[str, tuple[float, int]]
    said: dict[int, str]
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
        """Appends a completed call; `done` in monotonic seconds."""
        arm = self.arms.setdefault(judged.arm, len(self.arms))
        zero = self.start
        self._rows += _PACK.pack(
            call.index,
            call.scheduled - zero,
            call.sent - zero,
            (call.written or call.sent) - zero,
            call.first - zero if call.first else 0.0,
            done - zero,
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
        """The bytes of the records since the last call."""
        rows, self._rows = bytes(self._rows), bytearray()
        return rows


def parse_records(rows: bytes) -> Records:
    """Records from the bytes of `Recorder.take`, as a read-only array without a copy."""
    return np.frombuffer(rows, RECORD)
