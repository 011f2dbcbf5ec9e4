"""Counts and records the requests of a listener, in the same way for every protocol."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

from convoy.errors import Cancelled, ConvoyError, DeadlineExceeded, Overloaded, QuotaExceeded
from serve.auth import Holder
from serve.gateway.dataplane import DataPlane, log_fault
from serve.gateway.endpoints import Endpoint
from serve.gateway.request_context import RequestContext
from serve.telemetry.definitions import IN_FLIGHT
from serve.telemetry.recorder import Metrics
from serve.telemetry.request_events import FAULT, Observer, RequestEvent


class WireProtocol(NamedTuple):
    """A protocol's name and its codes in metrics, logs and traces: of an answer, of an unexpected error, of a ConvoyError."""

    name: str
    answered: str
    fault: str
    code_of: Callable[[ConvoyError], str]


class RequestTracker:
    """The requests of one listener."""

    def __init__(self, plane: DataPlane, metrics: Metrics, protocol: WireProtocol) -> None:
        self.plane = plane
        self.protocol = protocol
        self.in_flight = metrics.values(IN_FLIGHT, protocol=protocol.name)

    def track(self, context: RequestContext, endpoint: Endpoint | None = None) -> TrackedRequest:
        """A request that is being answered, as a context manager.

        `endpoint` may be set later. A request without one counts as in flight, but for no model.
        """
        return TrackedRequest(self, context, endpoint)

    def refused(self, context: RequestContext, endpoint: Endpoint, error: ConvoyError) -> None:
        """Records a request that is refused at once."""
        with TrackedRequest(self, context, endpoint) as request:
            request.failed(error)


class TrackedRequest:
    """One request of a listener. A class with slots: a generator's context manager costs three times as much per request."""

    __slots__ = ("_code", "_holder", "_reason", "_tracker", "context", "endpoint")

    def __init__(self, tracker: RequestTracker, context: RequestContext, endpoint: Endpoint | None) -> None:
        self.context = context
        self.endpoint = endpoint
        self._tracker = tracker
        self._holder: Holder | None = None
        self._code, self._reason = tracker.protocol.fault, FAULT  # until it is answered, or fails with a known error

    def __enter__(self) -> Self:
        tracker = self._tracker
        tracker.in_flight[0] += 1
        tracker.plane.in_flight += 1
        return self

    def __exit__(self, *error: object) -> None:
        """Counts the request by its code and passes it to the observers: logs and traces, by default none."""
        tracker, endpoint = self._tracker, self.endpoint
        plane = tracker.plane
        if self._holder is not None:
            self._holder.leave()
        tracker.in_flight[0] -= 1
        plane.in_flight -= 1
        if endpoint is not None:
            endpoint.recorder.code(tracker.protocol.name, self._code)
            if plane.observers:
                self._notify(endpoint, plane.observers)

    def authorize(self, key: bytes, name: str) -> None:
        """Checks a key's right to call a model, and counts the request against its quotas until it ends.

        Call it only if keys are declared. Raises Unauthenticated, Forbidden or QuotaExceeded.
        """
        self._holder = self._tracker.plane.access.enter(key, name)

    def answered(self) -> None:
        """Records the times of a request whose answer has just been sent."""
        assert self.endpoint is not None
        recorder, timings, now = self.endpoint.recorder, self.context.timings, time.monotonic()
        if timings.cached:
            recorder.cache_hit(now - timings.started)
        else:
            recorder.request(timings.stages(now))
        self._code, self._reason = self._tracker.protocol.answered, ""

    def failed(self, error: Exception) -> ConvoyError:
        """Records the error of a request. Returns the error to send: FAULT in place of an unexpected one, which may leak data."""
        assert self.endpoint is not None
        recorder, context = self.endpoint.recorder, self.context
        recorder.failed(time.monotonic() - context.timings.started)
        if not isinstance(error, ConvoyError) or error.http_status == 500:
            context.request_id = context.request_id or self._tracker.plane.new_id()
            log_fault(error, context.request_id, self.endpoint.name)
        shown = error if isinstance(error, ConvoyError) else ConvoyError(FAULT)
        self._code, self._reason = self._tracker.protocol.code_of(shown), str(shown)
        if isinstance(shown, Cancelled):
            recorder.cancelled()
        elif isinstance(shown, QuotaExceeded):  # before Overloaded, its base class
            recorder.shed("quota")
        elif isinstance(shown, Overloaded):
            recorder.shed("queue")
        elif isinstance(shown, DeadlineExceeded):
            recorder.shed("deadline")
        return shown

    def _notify(self, endpoint: Endpoint, observers: Sequence[Observer]) -> None:
        protocol, context = self._tracker.protocol.name, self.context
        parent = context.caller.header("traceparent") or ""
        event = RequestEvent(
            protocol,
            endpoint.name,
            endpoint.version,
            self._code,
            context.timings,
            time.monotonic(),
            parent,
            self._reason,
        )
        for observe in observers:
            observe(event)
