"""A view that records what it is shown."""

from __future__ import annotations


class Recorded:
    """Records the phases of a run."""

    def __init__(self) -> None:
        self.phases: list[str] = []

    def phase(self, name: str, seconds: float) -> None:
        self.phases.append(name)

    def count(self, answered: int, failed: int) -> None:
        assert min(answered, failed) >= 0
