"""Who took part in the answer of a model that is made of others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Outcome = Literal["answered", "late", "failed"]
OUTCOMES: tuple[Outcome, ...] = ("answered", "late", "failed")


@dataclass(frozen=True, slots=True)
class MemberResult:
    """What a member did for one request: `images` it was asked for, `seconds` until it answered or was given up.

    `engine_seconds` is its rows' share of the runs they were in: what the request cost of that engine.
    """

    model: str
    version: str
    images: int
    outcome: Outcome
    seconds: float
    engine_seconds: float = 0.0
    reason: str = ""

    def document(self) -> dict[str, Any]:
        """The part as answers show it."""
        return {
            "model": self.model,
            "version": self.version,
            "images": self.images,
            "outcome": self.outcome,
            "ms": round(self.seconds * 1000, 3),
            "engine_ms": round(self.engine_seconds * 1000, 3),
        } | ({"reason": self.reason} if self.reason else {})
