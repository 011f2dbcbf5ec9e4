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
from serve.telemetry.definitions import IN_FLIGHT, REQUESTS
from serve.telemetry.recorder import Metrics, ModelRecorder
from serve.telemetry.request_events import FAULT, Observer, RequestEvent


class WireProtocol(NamedTuple):
    """A protocol's name and its codes in metrics, logs and traces: of an answer, of an unexpected error, of a ConvoyError."""

    name: str
    answered: str
    fault: str
    code_of: Callable[[ConvoyError], str]

    def code(self, error: Exception) -> str:
        """The code of any error."""
        return self.code_of(error) if isinstance(error, ConvoyError) else self.fault


class RequestTracker:
    """The requests of one listener."""

    def __init__(self, plane: DataPlane, metrics: Metrics, protocol: WireProtocol) -> None:
        self.plane = plane
        self.protocol = protocol
        self._metrics = metrics
        self.in_flight = metrics.values(IN_FLIGHT, protocol=protocol.name)

    def track(self, context: RequestContext, endpoint: Endpoint | None = None, name: str = "") -> TrackedRequest:
        """A request that is being answered, as a context manager.

        `endpoint` may be set later. A request without one is counted as `count_unserved` does for the model `name`.
        """
        return TrackedRequest(self, context, endpoint, name)

    def refused(self, context: RequestContext, endpoint: Endpoint, error: ConvoyError) -> None:
        """Records a request that is refused at once."""
        with TrackedRequest(self, context, endpoint) as request:
            request.failed(error)

    def count_unserved(self, name: str, code: str) -> None:
        """Counts a request to a name that does not serve, or not in the requested version.

        A name that is not declared counts as an empty one: clients choose it, and the number of series must stay bounded.
        """
        declared = name in self.plane.endpoints.by_name or name in self.plane.absences()
        labels = {"model": name if declared else "", "version": "", "protocol": self.protocol.name, "code": code}
        self._metrics.increment(REQUESTS, **labels)


class TrackedRequest:
    """One request of a listener. A class with slots: a generator's context manager costs more per request."""

    __slots__ = ("_code", "_holder", "_name", "_reason", "_tracker", "context", "endpoint")

    def __init__(
        self, tracker: RequestTracker, context: RequestContext, endpoint: Endpoint | None, name: str = ""
    ) -> None:
        self.context = context
        self.endpoint = endpoint
        self._tracker = tracker
        self._holder: Holder | None = None
        self._name = name
        self._code, self._reason = tracker.protocol.fault, FAULT  # until it is answered, or fails with a known error

    @property
    def plane(self) -> DataPlane:
        """The data plane that answers it."""
        return self._tracker.plane

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
        if endpoint is None:
            tracker.count_unserved(self._name, self._code)
            return
        endpoint.recorder.code(tracker.protocol.name, self._code)
        if plane.observers:
            try:
                self._notify(endpoint, plane.observers)
            except Exception as fault:  # noqa: BLE001 the answer does not depend on its log and trace
                log_fault(fault, self.context.request_id, endpoint.name)

    def authorize(self, key: bytes, name: str) -> None:
        """Checks a key's right to call a model, and counts the request against its quotas until it ends.

        Call it only if keys are declared. Raises Unauthenticated, Forbidden or QuotaExceeded.
        """
        self._holder = self._tracker.plane.access.enter(key, name)

    def answered(self) -> None:
        """Records the times of a request whose answer has just been sent."""
        assert self.endpoint is not None
        self._code, self._reason = self._tracker.protocol.answered, ""
        recorder, timings, now = self.endpoint.recorder, self.context.timings, time.monotonic()
        if timings.cached:
            recorder.cache_hit(now - timings.started)
        else:
            recorder.request(timings.stages(now))

    def failed(self, error: Exception) -> ConvoyError:
        """Records the error of a request. Returns the error to send: FAULT in place of an unexpected one, which may leak data."""
        context, endpoint, protocol = self.context, self.endpoint, self._tracker.protocol
        self._code, self._reason = protocol.fault, FAULT  # until the error is recorded
        if not isinstance(error, ConvoyError) or error.http_status == 500:
            context.request_id = context.request_id or self._tracker.plane.new_id()
            log_fault(error, context.request_id, endpoint.name if endpoint is not None else self._name)
        shown = error if isinstance(error, ConvoyError) else ConvoyError(FAULT)
        if endpoint is not None:
            _record(endpoint.recorder, shown, time.monotonic() - context.timings.started)
        self._code, self._reason = protocol.code(shown), str(shown)
        return shown

    def lost(self) -> None:
        """Records that the response could not be sent: the connection answers with a fault, or closes."""
        self._code, self._reason = self._tracker.protocol.fault, FAULT

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


def _record(recorder: ModelRecorder, error: ConvoyError, seconds: float) -> None:
    recorder.failed(seconds)
    if isinstance(error, Cancelled):
        recorder.cancelled()
    elif isinstance(error, QuotaExceeded):  # before Overloaded, its base class
        recorder.shed("quota")
    elif isinstance(error, Overloaded):
        recorder.shed("queue")
    elif isinstance(error, DeadlineExceeded):
        recorder.shed("deadline")
