"""Timestamps of a request at the end of each stage."""

from __future__ import annotations

from dataclasses import dataclass

STAGES = ("receive", "decode", "queue", "run", "post", "send")


@dataclass(slots=True)
class RequestTimings:
    """Timestamps of a request in monotonic seconds, one at the end of each stage; the differences are the durations."""

    started: float
    received: float = 0.0
    decoded: float = 0.0
    batched: float = 0.0
    ran: float = 0.0
    answered: float = 0.0
    batch_size: int = 0
    cached: bool = False
    id: str = ""
    experiment: str = ""  # the experiment that was called, and the arm that answers
    arm: str = ""

    def stages(self, sent: float) -> tuple[float, ...]:
        """Seconds of each of STAGES; they add up to the request's duration."""
        return (
            self.received - self.started,
            self.decoded - self.received,
            self.batched - self.decoded,
            self.ran - self.batched,
            self.answered - self.ran,
            sent - self.answered,
        )


def stages_ms(timings: RequestTimings, now: float) -> dict[str, float]:
    """Milliseconds by stage up to `now`, in whole microseconds, for the response; the stages add up to `total`."""
    return {
        "receive": _milliseconds(timings.received - timings.started),
        "decode": _milliseconds(timings.decoded - timings.received),
        "queue": _milliseconds(timings.batched - timings.decoded),
        "run": _milliseconds(timings.ran - timings.batched),
        "post": _milliseconds(now - timings.ran),
        "total": _milliseconds(now - timings.started),
    }


def _milliseconds(seconds: float) -> float:
    return int(seconds * 1e6 + 0.5) / 1000  # `round` to three digits takes longer than the rest of a response's times
