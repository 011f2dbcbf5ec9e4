"""Member results: what each model of an ensemble or cascade contributed to an answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Outcome = Literal["answered", "late", "failed"]
OUTCOMES: tuple[Outcome, ...] = ("answered", "late", "failed")


@dataclass(frozen=True, slots=True)
class MemberResult:
    """A member's part in a request: `images` that it got, `seconds` until it answered, failed or was late.

    `engine_seconds`: its rows' share of the time of their engine runs.
    """

    model: str
    version: str
    images: int
    outcome: Outcome
    seconds: float
    engine_seconds: float = 0.0
    reason: str = ""

    def document(self) -> dict[str, Any]:
        """The JSON-ready document for responses."""
        return {
            "model": self.model,
            "version": self.version,
            "images": self.images,
            "outcome": self.outcome,
            "ms": round(self.seconds * 1000, 3),
            "engine_ms": round(self.engine_seconds * 1000, 3),
        } | ({"reason": self.reason} if self.reason else {})
