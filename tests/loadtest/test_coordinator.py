"""Complete runs against a real server: every protocol, every fault, and the accounting of every request."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from convoy.errors import ConfigError
from loadtest.coordinator import run_plan
from loadtest.payloads import prepare
from loadtest.plan import Feedback, LabelSource, Load, Payload, Plan, Protocol, Step, Target, Traffic
from loadtest.report.build import build_report
from loadtest.report.values import Report
from tests.loadtest.conftest import Echo
from tests.loadtest.echo_server import STALL_FROM_S, STALL_UNTIL_S, class_of

TINY = Payload(side=8, format="png", count=20)
OPEN = Load(steps=(Step(150, 1000),))


def measure(
    url: str, model: str = "ok", *, protocol: Protocol = "classify", load: Load = OPEN, **more: object
) -> Report:
    payload = more.pop("payload", TINY)
    target = Target(url, protocol, **{key: more.pop(key) for key in list(more) if key in Target.__dataclass_fields__})  # type: ignore[arg-type]
    assert isinstance(payload, Payload)
    plan = Plan(target, (Traffic(model, payload=payload),), load, duration_s=0.5, warmup_s=0.1)
    return build_report(run_plan(replace(plan, **more)))  # type: ignore[arg-type]


def labelled_folder(folder: Path) -> Payload:
    """A folder of twenty images; the server agrees with half of their labels."""
    for number, item in enumerate(prepare(TINY, 1).items):
        label = class_of(item.image) if number % 2 else (class_of(item.image) + 1) % 10
        (folder / f"{label:04}_{number}.png").write_bytes(item.image)
    return Payload(kind="folder", folder=str(folder), labels="prefix", count=20)


@pytest.mark.parametrize(
    "protocol", ["classify", "classify-json", "classify-multipart", "oip", "oip-raw", "grpc", "grpc-classify"]
)
def test_every_image_protocol_reports_the_right_accuracy(echo: Echo, tmp_path: Path, protocol: Protocol) -> None:
    url = echo.grpc if protocol.startswith("grpc") else echo.http
    report = measure(url, protocol=protocol, payload=labelled_folder(tmp_path), load=Load(concurrency=2))
    assert report.accounting.balanced
    assert report.total.failed == 0
    # Payloads are sent in rounds, so the share is exact up to the last, incomplete round.
    assert report.total.accuracy == pytest.approx(0.5, abs=10 / report.total.labelled)
    # The interval counts twenty distinct images, no matter how often they were sent.
    assert report.total.accuracy_interval is not None
    assert report.total.accuracy_interval.high - report.total.accuracy_interval.low > 0.35


@pytest.mark.parametrize("protocol", ["oip", "oip-json", "grpc"])
def test_the_server_defines_name_shape_and_type_of_tensors(echo: Echo, protocol: Protocol) -> None:
    url = echo.grpc if protocol == "grpc" else echo.http
    report = measure(url, "ok-tensor", protocol=protocol, payload=Payload(kind="tensor", count=4))
    assert set(report.accounting.outcomes) <= {"HTTP 200", "gRPC OK"}
    assert report.payloads == ("4 random FP32 tensors [3, 8, 8]",)


def test_raw_bytes_are_posted_to_any_path(echo: Echo) -> None:
    report = measure(echo.http, "resnet-18", protocol="raw")
    assert report.accounting.outcomes.keys() == {"HTTP 200"}


@pytest.mark.parametrize("labels", ["folder", "csv"])
def test_text_labels_are_read_from_folders_and_csv(echo: Echo, tmp_path: Path, labels: LabelSource) -> None:
    table = ["file,label"]
    for item in prepare(TINY, 1).items:
        name = f"class{class_of(item.image)}/{len(table)}.png"
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(item.image)
        table.append(f"{name},class{class_of(item.image)}")
    (tmp_path / "labels.csv").write_text("\n".join(table))
    payload = Payload(kind="folder", folder=str(tmp_path), labels=labels, labels_csv=str(tmp_path / "labels.csv"))
    protocols: tuple[Protocol, ...] = ("classify", "oip")
    for protocol in protocols:
        assert measure(echo.http, protocol=protocol, payload=payload).total.accuracy == 1.0


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("busy", {"HTTP 200", "HTTP 503"}),
        ("missing", {"HTTP 404"}),
        ("reset", {"HTTP 200", "reset: connection lost before the answer"}),
        ("garbage", {"malformed: the answer is not what the protocol says"}),
        ("chunked", {"HTTP 200"}),
        ("closing", {"HTTP 200"}),
        ("short", {"malformed: the answer is not what the protocol says"}),
    ],
)
def test_failures_are_counted_by_kind_and_never_retried(echo: Echo, model: str, expected: set[str]) -> None:
    before = echo.counts().get(model, 0)
    report = measure(echo.http, model)
    assert set(report.accounting.outcomes) == expected
    texts = {"busy": {"HTTP 503": '{"error":"queue full"}'}, "missing": {"HTTP 404": '{"error":"unknown model"}'}}
    assert model not in texts or report.accounting.said == texts[model]
    assert report.accounting.balanced
    assert echo.counts()[model] - before == report.accounting.issued
    if model == "busy":
        assert abs(report.accounting.outcomes["HTTP 503"] - report.accounting.issued / 3) < 1  # every third


def test_grpc_failures_carry_their_codes(echo: Echo) -> None:
    before = echo.counts().get("busy", 0)
    report = measure(echo.grpc, "busy", protocol="grpc-classify")
    assert set(report.accounting.outcomes) == {"gRPC OK", "gRPC RESOURCE_EXHAUSTED"}
    assert report.accounting.said == {"gRPC RESOURCE_EXHAUSTED": "queue full"}
    assert echo.counts()["busy"] - before == report.accounting.issued


def test_requests_to_a_hanging_server_time_out_and_are_accounted_for(echo: Echo) -> None:
    for url, protocol, name in (
        (echo.http, "classify", "timeout: no answer in the client's time"),
        (echo.grpc, "grpc-classify", "gRPC DEADLINE_EXCEEDED"),
    ):
        report = measure(url, "hang", protocol=protocol, timeout_s=0.5)  # type: ignore[arg-type]
        assert report.accounting.outcomes[name] > 0
        assert report.accounting.balanced


def test_requests_to_a_closed_port_are_connection_failures(echo: Echo) -> None:
    report = measure("http://127.0.0.1:1")
    assert set(report.accounting.outcomes) == {"connect: no connection"}
    assert report.accounting.balanced
    assert report.total.ok == 0
    assert report.quantile("p50") is None


@pytest.mark.parametrize("workers", [1, 3])
def test_the_requests_do_not_depend_on_the_number_of_workers(echo: Echo, workers: int) -> None:
    before = echo.counts().get(f"ok-{workers}", 0)
    report = measure(echo.http, f"ok-{workers}", workers=workers)
    assert report.accounting.issued == measure(echo.http).accounting.issued
    assert echo.counts()[f"ok-{workers}"] - before == report.accounting.issued
    assert len(report.generator.worker_cores) == workers


def test_open_loop_shows_a_stall_that_closed_loop_hides(echo: Echo) -> None:
    """Coordinated omission: the server stalls for one second of the run."""
    stall_ms = (STALL_UNTIL_S - STALL_FROM_S) * 1000
    closed = measure(echo.http, "stall-closed", load=Load(concurrency=1), duration_s=2.0, warmup_s=0.0)
    opened = measure(echo.http, "stall-open", load=Load(steps=(Step(300, 10),)), duration_s=2.0, warmup_s=0.0)
    assert closed.total.latency.maximum is not None
    assert closed.total.latency.maximum > 0.8 * stall_ms  # one request saw it
    assert (closed.quantile("p90") or stall_ms) < 0.3 * stall_ms
    # Requests that were due during the stall waited for half of it on average.
    assert (opened.quantile("p99") or 0.0) > 0.7 * stall_ms
    assert (opened.quantile("p90") or 0.0) > 0.5 * stall_ms


def test_without_keep_alive_every_request_opens_a_connection(echo: Echo) -> None:
    report = measure(echo.http, keep_alive=False, load=Load(concurrency=2))
    assert report.accounting.outcomes.keys() == {"HTTP 200"}


def test_a_rate_that_the_generator_cannot_reach_is_invalid(echo: Echo) -> None:
    before = echo.counts().get("flood", 0)
    report = measure(echo.http, "flood", load=Load(steps=(Step(1_000_000, 10),)), timeout_s=1)
    assert not report.generator.all_sent
    assert not report.verdict.valid
    assert report.accounting.balanced
    assert report.accounting.issued < 600_000
    assert echo.counts()["flood"] - before <= report.accounting.issued


def test_a_pool_that_is_too_small_makes_the_run_invalid(echo: Echo) -> None:
    report = measure(echo.http, "slow", max_connections=2)
    assert report.generator.waited_for_connection > 0
    assert not report.verdict.valid
    assert "--max-connections" in " ".join(report.verdict.reasons)
    assert report.accounting.balanced


def test_a_report_has_arms_models_stages_energy_and_feedback(echo: Echo, tmp_path: Path) -> None:
    payload = labelled_folder(tmp_path)
    plan = Plan(
        Target(echo.http, metrics_url=f"{echo.http}/metrics"),
        (Traffic("arms", payload=payload), Traffic("other", weight=0.5, payload=TINY)),
        OPEN,
        duration_s=0.6,
        warmup_s=0.1,
        feedback=Feedback(delay_s=0.1),
    )
    before = echo.counts().get("feedback", 0)
    report = build_report(run_plan(plan))
    assert {group.name for group in report.by_model} == {"arms", "other"}
    assert {group.name for group in report.by_arm} == {"a", "b"}
    assert sum(group.requests for group in report.by_model) == report.total.requests
    feedback = sum(report.accounting.feedback.values())
    assert report.accounting.feedback.keys() == {"HTTP 200"}
    assert echo.counts()["feedback"] - before == feedback
    assert report.server is not None
    assert report.server.stages_ms["run"] == pytest.approx(2.0)
    assert report.server.batch_size == pytest.approx(4.0)
    assert report.server.energy_method == "estimated"
    assert report.energy_per_image_j == pytest.approx(0.5, rel=0.1)
    assert report.energy_parts_per_image_j == pytest.approx({"model": 0.4, "idle": 0.1}, rel=0.1)
    assert report.answer_stages_ms["queue"] == pytest.approx(1.0)


def test_slow_uploads_arrive_complete_and_late(echo: Echo, tmp_path: Path) -> None:
    payload = labelled_folder(tmp_path)
    size = len((next(tmp_path.iterdir())).read_bytes())
    plan = Plan(
        Target(echo.http),
        (Traffic("ok", payload=payload, upload_bytes_per_s=size * 5),),
        Load(steps=(Step(20, 10),)),
        1.0,
        0.0,
    )
    report = build_report(run_plan(plan))
    assert report.total.accuracy is not None
    assert report.total.failed == 0
    p50 = report.quantile("p50")
    assert p50 is not None
    assert p50 > 150


@pytest.mark.parametrize(
    ("target", "traffic", "text"),
    [
        ("http", Traffic("ok", payload=Payload(kind="folder", folder="/nowhere")), "no images"),
        ("oip", Traffic("ok", payload=Payload(kind="tensor")), "send it images"),
        ("oip", Traffic("ok-tensor", payload=TINY), "--tensor"),
        ("http", Traffic("ok", payload=TINY, batch=2), "one raw body holds one image"),
        ("http", Traffic("ok", payload=Payload(kind="tensor", shape=(2,))), "classify takes images"),
    ],
)
def test_plans_that_cannot_be_sent_are_refused_with_the_reason(
    echo: Echo, target: str, traffic: Traffic, text: str
) -> None:
    protocol: Protocol = "oip" if target == "oip" else "classify"
    with pytest.raises(ConfigError, match=text):
        run_plan(Plan(Target(echo.http, protocol), (traffic,), OPEN, 0.2, 0.0))
