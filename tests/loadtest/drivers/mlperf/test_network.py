"""Scenarios against the echo server, over HTTP and gRPC, with real LoadGen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from convoy.errors import ConfigError, ConvoyError
from loadtest.drivers.mlperf.driver import run_mlperf
from loadtest.drivers.mlperf.network import ServerSubject
from loadtest.drivers.mlperf.plan import MlperfPlan, Scenario
from loadtest.payloads import prepare
from loadtest.plan import Payload, Protocol, Target, Traffic
from tests.loadtest.conftest import Echo
from tests.loadtest.drivers.mlperf.views import Recorded
from tests.loadtest.echo_server import class_of

IMAGES = Payload(side=8, format="png", count=6)
TENSORS = Payload("tensor", count=6)
CASES: list[tuple[Scenario, Protocol, int]] = [
    ("single-stream", "classify", 1),
    ("multi-stream", "oip", 8),
    ("server", "classify", 1),
    ("server", "grpc", 1),
    ("offline", "oip", 4),
    ("offline", "grpc", 4),
]


def subject(echo: Echo, protocol: Protocol, model: str, batch: int = 1, payload: Payload = IMAGES) -> ServerSubject:
    target = Target(echo.grpc if protocol.startswith("grpc") else echo.http, protocol, max_connections=8)
    return ServerSubject(target, Traffic(model, payload=payload, batch=batch), concurrency=8)


@pytest.mark.parametrize(("scenario", "protocol", "batch"), CASES)
def test_every_sample_is_sent_and_answered(
    scenario: Scenario, protocol: Protocol, batch: int, echo: Echo, tmp_path: Path
) -> None:
    tensor = batch > 1
    model = f"mlperf-{scenario}-{protocol}{'-tensor' if tensor else ''}"
    plan = MlperfPlan(
        subject(echo, protocol, model, batch, TENSORS if tensor else IMAGES),
        scenario,
        tmp_path,
        qps=50.0 if scenario == "server" else None,
        duration_s=0.6,
        latency_ms=10_000,
    )
    report = run_mlperf(plan, Recorded())
    assert report.result is not None
    assert report.answered >= report.result.queries > 0
    assert not report.failures
    requests = echo.counts()[model]
    assert report.answered <= requests * batch
    if scenario == "server":
        assert report.bound_kept
        assert report.result.scheduled_per_s == pytest.approx(50, rel=0.5)


@pytest.mark.parametrize(("protocol", "batch"), [("classify", 1), ("oip", 5), ("grpc", 4)])
def test_accuracy_mode_checks_labels(protocol: Protocol, batch: int, echo: Echo, tmp_path: Path) -> None:
    photos, rows = tmp_path / "photos", ["file,label"]
    photos.mkdir()
    for number, item in enumerate(prepare(replace(IMAGES, count=18), 5).items):
        (photos / f"{number}.png").write_bytes(item.image)
        rows.append(f"{number}.png,{(class_of(item.image) + (number < 3)) % 10}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    payload = Payload("folder", str(photos), "csv", str(tmp_path / "labels.csv"))
    plan = MlperfPlan(
        subject(echo, protocol, "labelled", batch, payload), "offline", tmp_path / "logs", accuracy=True, duration_s=0.2
    )
    report = run_mlperf(plan, Recorded())
    assert (report.answered, report.labelled) == (18, 18)
    assert report.accuracy == pytest.approx(15 / 18)


def test_a_model_that_the_server_does_not_know_ends_the_run_before_it_starts(echo: Echo, tmp_path: Path) -> None:
    plan = MlperfPlan(subject(echo, "classify", "missing"), "offline", tmp_path, duration_s=0.2)
    with pytest.raises(ConvoyError, match=r"samples failed before the run: HTTP 404: .*unknown model"):
        run_mlperf(plan, Recorded())


def test_a_server_that_does_not_listen_ends_the_run_before_it_starts(tmp_path: Path) -> None:
    closed = ServerSubject(Target("http://127.0.0.1:1"), Traffic("m", payload=IMAGES), 4)
    with pytest.raises(ConvoyError, match="no connection"):
        run_mlperf(MlperfPlan(closed, "offline", tmp_path, duration_s=0.2), Recorded())


def test_options_that_no_request_can_carry_are_refused(echo: Echo) -> None:
    with pytest.raises(ConfigError, match="holds one image"):
        subject(echo, "classify", "m", batch=2).open(1)


def test_an_answer_about_fewer_images_is_malformed(echo: Echo, tmp_path: Path) -> None:
    plan = MlperfPlan(subject(echo, "classify", "short"), "offline", tmp_path, duration_s=0.2)
    with pytest.raises(ConvoyError, match=r"malformed.*0 classifications for 1 images"):
        run_mlperf(plan, Recorded())


def test_requests_are_built_before_the_clock_runs(echo: Echo) -> None:
    system = subject(echo, "oip", "m-tensor", 4, TENSORS).open(1)
    try:
        built = system._built  # type: ignore[attr-defined]
        system.load([5, 3, 1, 0, 2, 4])
        assert list(built) == [(5, 3, 1, 0), (2, 4, 5, 3), (1, 0, 2, 4)]
    finally:
        system.close()
