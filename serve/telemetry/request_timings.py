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
    """Milliseconds by stage up to `now`, for the response; the stages add up to `total`."""
    return {
        "receive": round((timings.received - timings.started) * 1000, 3),
        "decode": round((timings.decoded - timings.received) * 1000, 3),
        "queue": round((timings.batched - timings.decoded) * 1000, 3),
        "run": round((timings.ran - timings.batched) * 1000, 3),
        "post": round((now - timings.ran) * 1000, 3),
        "total": round((now - timings.started) * 1000, 3),
    }
