"""Systems under test, as MLPerf calls them: they answer LoadGen's samples and account for every one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

TEXT_LENGTH = 200  # characters kept of a failure's message
NO_CLASS = -1  # the class index that is reported for a failed sample, or for an answer with labels only

# Receives answered samples: their ids in LoadGen and their class indices.
Completed = Callable[[Sequence[int], Sequence[int]], None]


@dataclass
class Account:
    """Counts of completed samples. `texts` holds the first message of each kind of failure."""

    answered: int = 0
    labelled: int = 0
    correct: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    texts: dict[str, str] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        return self.failures.total()

    def fail(self, kind: str, samples: int, text: str) -> None:
        """Counts samples that got no answer."""
        self.failures[kind] += samples
        self.texts.setdefault(kind, "".join(char if char.isprintable() else " " for char in text[:TEXT_LENGTH]))


class System(Protocol):
    """An open system under test with its samples in memory.

    `on_complete` is called exactly once for each issued id, from any thread, also for samples that fail.
    """

    account: Account
    on_complete: Completed

    @property
    def about(self) -> str:
        """Description of the samples, for reports."""

    @property
    def sample_count(self) -> int:
        """Number of distinct samples."""

    def load(self, indices: list[int]) -> None:
        """Prepares for samples in this order, before the clock runs."""

    def issue(self, ids: list[int], indices: list[int]) -> None:
        """Starts samples and returns at once. LoadGen calls it with the interpreter's lock held, on its own thread."""

    def client_cpu_s(self) -> float:
        """CPU seconds that the client's thread has used; 0 if there is no client."""

    def close(self) -> None:
        """Frees threads and connections."""


class Subject(Protocol):
    """What a plan names as the system under test. It is sent to the generator's process and opened there."""

    @property
    def label(self) -> str:
        """Its name in reports."""

    def open(self, seed: int) -> System:
        """Reads or draws the samples and connects. Raises ConfigError."""
