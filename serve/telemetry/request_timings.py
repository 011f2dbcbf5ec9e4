"""When a request passed each point of its way."""

from __future__ import annotations

from dataclasses import dataclass

STAGES = ("receive", "decode", "queue", "run", "post", "send")


@dataclass(slots=True)
class RequestTimings:
    """When a request passed each point, in monotonic seconds; the differences are its stages."""

    started: float
    received: float = 0.0
    decoded: float = 0.0
    batched: float = 0.0
    ran: float = 0.0
    answered: float = 0.0
    batch_size: int = 0
    cached: bool = False
    id: str = ""
    experiment: str = ""  # that was called, and the arm of it that answers
    arm: str = ""

    def stages(self, sent: float) -> tuple[float, ...]:
        """Seconds of receive, decode, queue, run, post and send; their sum is the whole time."""
        return (
            self.received - self.started,
            self.decoded - self.received,
            self.batched - self.decoded,
            self.ran - self.batched,
            self.answered - self.ran,
            sent - self.answered,
        )


def timings(trace: RequestTimings, now: float) -> dict[str, float]:
    """Milliseconds by stage up to `now`; the stages add up to the total."""
    return {
        "receive": round((trace.received - trace.started) * 1000, 3),
        "decode": round((trace.decoded - trace.received) * 1000, 3),
        "queue": round((trace.batched - trace.decoded) * 1000, 3),
        "run": round((trace.ran - trace.batched) * 1000, 3),
        "post": round((now - trace.ran) * 1000, 3),
        "total": round((now - trace.started) * 1000, 3),
    }
