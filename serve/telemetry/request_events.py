"""The event of a finished request, which the data plane passes to its observers: access log and tracing.

By default there is no observer, and no event is created.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from serve.telemetry.request_timings import STAGES, RequestTimings

# Replaces the text of an unexpected exception, which may contain secrets.
FAULT = "internal error; the server's log has it"
FIELDS = "fields"  # attribute of a log record: a dict that is merged into the JSON object of the message


@dataclass(frozen=True)
class RequestEvent:
    """A finished request: answered, refused or failed. `ended` in monotonic seconds; `code` is an HTTP status or a gRPC code."""

    protocol: str
    model: str
    version: str
    code: str
    timings: RequestTimings
    ended: float
    traceparent: str = ""
    error: str = ""

    def stages_ms(self) -> dict[str, float]:
        """Milliseconds by stage; empty for a request that failed or was answered from the cache."""
        if self.error or self.timings.cached:
            return {}
        return {
            name: round(seconds * 1000, 3)
            for name, seconds in zip(STAGES, self.timings.stages(self.ended), strict=True)
        }


Observer = Callable[[RequestEvent], None]
