"""What is told of a request when it has ended, to whoever wants to know: logs and traces. By default nobody does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from serve.telemetry.request_timings import STAGES, RequestTimings

FAULT = "internal error; the server's log has it"  # what a client is told of what nobody foresaw
FIELDS = "fields"  # of a log record: what goes into its object beside the message


@dataclass(frozen=True)
class RequestEvent:
    """A request that was answered or refused; `ended` in monotonic seconds, `code` as its protocol says it."""

    protocol: str
    model: str
    version: str
    code: str
    trace: RequestTimings
    ended: float
    traceparent: str = ""
    error: str = ""

    def stages_ms(self) -> dict[str, float]:
        """Milliseconds by stage, of an answered request that ran."""
        if self.error or self.trace.cached:
            return {}
        return {
            name: round(seconds * 1000, 3) for name, seconds in zip(STAGES, self.trace.stages(self.ended), strict=True)
        }


Observer = Callable[[RequestEvent], None]
