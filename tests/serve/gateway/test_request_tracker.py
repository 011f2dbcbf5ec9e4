"""The request tracker: counts, events and logs of requests, the same for both protocols."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from convoy.errors import (
    Cancelled,
    DeadlineExceeded,
    EngineFailed,
    InvalidInput,
    NotFound,
    NotReady,
    Overloaded,
    QuotaExceeded,
)
from serve.config.schema import Limits
from serve.gateway.availability import loading
from serve.gateway.dataplane import DataPlane
from serve.gateway.endpoints import Endpoint
from serve.gateway.request_context import RequestContext
from serve.gateway.request_tracker import RequestTracker, WireProtocol
from serve.grpc.calls import GRPC
from serve.http.app import HTTP
from serve.images.decode_pool import DecodePool
from serve.telemetry.definitions import CANCELLED, IN_FLIGHT, REQUESTS, SHED
from serve.telemetry.exposition import total
from serve.telemetry.mmap_store import MmapWriter, read_files
from serve.telemetry.recorder import Metrics, ModelRecorder
from serve.telemetry.request_events import FAULT, RequestEvent
from serve.telemetry.request_timings import RequestTimings

PROTOCOLS = pytest.mark.parametrize("protocol", [HTTP, GRPC], ids=["http", "grpc"])
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Traced:
    """A caller that sends a trace context."""

    address = "127.0.0.1"

    def header(self, name: str) -> str | None:
        return TRACEPARENT if name == "traceparent" else None


class Tracked:
    """A tracker with a single endpoint, and what it records."""

    def __init__(self, folder: Path, protocol: WireProtocol) -> None:
        self.folder = folder
        metrics = Metrics(MmapWriter(folder))
        self.plane = DataPlane(Limits(), DecodePool(1, np.zeros(1)))
        self.events: list[RequestEvent] = []
        self.plane.observers.append(self.events.append)
        self.tracker = RequestTracker(self.plane, metrics, protocol)
        self.recorder = ModelRecorder(metrics, "net", "1")
        unused: Any = SimpleNamespace()
        self.endpoint = Endpoint("net", "1", "image", (), unused, 1, unused, unused, self.recorder)

    def context(self) -> RequestContext:
        return RequestContext(RequestTimings(1.0, 2.0, 3.0, 4.0, 5.0, 6.0, id="mine"), 1e12, Traced())

    def values(self, definition: Any) -> dict[frozenset[tuple[str, str]], float]:
        self.recorder.flush()
        return {
            frozenset(key): row[0] for key, row in total(read_files(self.folder))[definition.name].items() if row[0]
        }


def run(scenario: Any) -> None:
    asyncio.run(scenario())


@PROTOCOLS
def test_an_answer_is_counted_once_and_leaves_nothing_in_flight(tmp_path: Path, protocol: WireProtocol) -> None:
    async def scenario() -> None:
        tracked = Tracked(tmp_path, protocol)
        with tracked.tracker.track(tracked.context(), tracked.endpoint) as request:
            assert tracked.plane.in_flight == 1
            assert list(tracked.values(IN_FLIGHT).values()) == [1]
            request.answered()
        assert tracked.plane.in_flight == 0
        assert tracked.values(IN_FLIGHT) == {}
        labels = {"protocol": protocol.name, "code": protocol.answered, "model": "net", "version": "1"}
        assert tracked.values(REQUESTS) == {frozenset(labels.items()): 1}
        (event,) = tracked.events
        assert (event.code, event.error, event.traceparent) == (protocol.answered, "", TRACEPARENT)

    run(scenario)


@PROTOCOLS
@pytest.mark.parametrize(
    ("error", "definition"),
    [
        (InvalidInput("no image"), None),
        (Cancelled("gone"), CANCELLED),
        (QuotaExceeded("too many"), SHED),
        (Overloaded("full"), SHED),
        (DeadlineExceeded("late"), SHED),
    ],
)
def test_an_error_is_recorded_under_its_own_code(
    tmp_path: Path, protocol: WireProtocol, error: Any, definition: Any
) -> None:
    async def scenario() -> None:
        tracked = Tracked(tmp_path, protocol)
        with tracked.tracker.track(tracked.context(), tracked.endpoint) as request:
            assert request.failed(error) is error
        tracked.tracker.refused(tracked.context(), tracked.endpoint, error)  # recorded in the same way
        assert [(event.code, event.error) for event in tracked.events] == [(protocol.code_of(error), str(error))] * 2
        assert definition is None or list(tracked.values(definition).values()) == [2]

    run(scenario)


@PROTOCOLS
@pytest.mark.parametrize("error", [ValueError("secret"), EngineFailed("engine")])
def test_a_fault_is_logged_once_and_gets_a_request_id(
    tmp_path: Path, protocol: WireProtocol, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        tracked = Tracked(tmp_path, protocol)
        context = tracked.context()
        context.request_id = ""
        with tracked.tracker.track(context, tracked.endpoint) as request:
            public = request.failed(error)
        assert str(public) == (str(error) if isinstance(error, EngineFailed) else FAULT)
        assert context.request_id != ""
        assert tracked.events[0].error == str(public)

    with caplog.at_level(logging.ERROR, "convoy"):
        run(scenario)
    assert len(caplog.records) == 1


@PROTOCOLS
def test_a_request_that_ends_without_a_result_counts_as_a_fault(tmp_path: Path, protocol: WireProtocol) -> None:
    """For example because its task is cancelled."""

    async def scenario() -> None:
        tracked = Tracked(tmp_path, protocol)
        with pytest.raises(asyncio.CancelledError), tracked.tracker.track(tracked.context(), tracked.endpoint):
            raise asyncio.CancelledError
        assert [(event.code, event.error) for event in tracked.events] == [(protocol.fault, FAULT)]
        assert tracked.plane.in_flight == 0

    run(scenario)


@PROTOCOLS
def test_a_request_to_an_unknown_model_is_counted_without_its_name(tmp_path: Path, protocol: WireProtocol) -> None:
    async def scenario() -> None:
        tracked, error = Tracked(tmp_path, protocol), NotFound("no such model")
        for name in ("typo", "another"):
            with tracked.tracker.track(tracked.context(), name=name) as request:
                assert tracked.plane.in_flight == 1
                assert request.failed(error) is error
        labels = {"protocol": protocol.name, "code": protocol.code_of(error), "model": "", "version": ""}
        assert tracked.values(REQUESTS) == {frozenset(labels.items()): 2}
        assert tracked.plane.in_flight == 0
        assert tracked.events == []

    run(scenario)


@PROTOCOLS
def test_a_declared_model_that_does_not_serve_is_counted_under_its_name(tmp_path: Path, protocol: WireProtocol) -> None:
    async def scenario() -> None:
        tracked, error = Tracked(tmp_path, protocol), NotReady("being loaded")
        tracked.plane.absences = lambda: {"absent": loading("absent")}
        with tracked.tracker.track(tracked.context(), name="absent") as request:
            request.failed(error)
        labels = {"protocol": protocol.name, "code": protocol.code_of(error), "model": "absent", "version": ""}
        assert tracked.values(REQUESTS) == {frozenset(labels.items()): 1}

    run(scenario)


@PROTOCOLS
def test_a_failed_log_or_trace_changes_no_request(
    tmp_path: Path, protocol: WireProtocol, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(event: RequestEvent) -> None:
        raise OSError("disk full")

    async def scenario() -> None:
        tracked = Tracked(tmp_path, protocol)
        tracked.plane.observers[:] = [fail]
        with tracked.tracker.track(tracked.context(), tracked.endpoint) as request:
            request.answered()
        assert [dict(key)["code"] for key in tracked.values(REQUESTS)] == [protocol.answered]

    with caplog.at_level(logging.ERROR, "convoy"):
        run(scenario)
    assert "disk full" in caplog.text


@PROTOCOLS
def test_an_error_that_could_not_be_sent_counts_as_a_fault(tmp_path: Path, protocol: WireProtocol) -> None:
    async def scenario() -> None:
        tracked = Tracked(tmp_path, protocol)
        with tracked.tracker.track(tracked.context(), tracked.endpoint) as request:
            request.failed(InvalidInput("no image"))
            request.lost()
        assert [(event.code, event.error) for event in tracked.events] == [(protocol.fault, FAULT)]

    run(scenario)
