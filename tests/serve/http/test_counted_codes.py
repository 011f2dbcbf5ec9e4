"""The code that a client gets is the one that is counted, wherever on its way a request fails. The same over both protocols."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import grpc
import httpx
import numpy as np
import orjson
import pytest

from convoy.protos import classifier_pb2 as classifier_pb
from convoy.protos import open_inference_pb2 as inference_pb
from convoy.protos.classifier_pb2_grpc import ClassifierStub
from convoy.protos.open_inference_pb2_grpc import GRPCInferenceServiceStub
from models.artifact import BUNDLED
from serve.http.http1.head import MAX_PLAIN_BYTES
from serve.http.responses import response_head
from serve.telemetry.definitions import REQUESTS
from serve.telemetry.exposition import total
from serve.telemetry.mmap_store import read_files
from tests.artifacts import write_artifact
from tests.serve.listeners import Serving, StartGateway, receive_all
from tests.waiting import until

MODEL = "lenet5-mnist"
BROKEN = "broken"  # declared, and cannot be loaded
DIGIT = (BUNDLED / "samples" / "mnist-0-7.png").read_bytes()
TENSOR = orjson.dumps(
    {"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 28, 28, 1], "data": [0] * 28 * 28}]}
)
JSON = {"content-type": "application/json"}
FAULT = {"error": "internal error; the server's log has it"}
LARGE = bytes(MAX_PLAIN_BYTES + 1)  # beside the hot path
Series = tuple[str, str, str, str]  # model, version, protocol, code


@pytest.fixture(scope="module")
def gateway(start_gateway: StartGateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = write_artifact(tmp_path_factory.mktemp("artifacts") / BROKEN, BROKEN)
    for file in folder.glob("*.onnx"):
        file.write_bytes(b"damaged")
    models = [{"name": MODEL, "cache_mb": 0}, {"name": BROKEN, "artifact": str(folder)}]
    with start_gateway(models=models) as gateway:
        yield gateway


@pytest.fixture
def channel(gateway: Serving) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(gateway.grpc.removeprefix("grpc://")) as channel:
        yield channel


def counted(gateway: Serving) -> Counter[Series]:
    rows = total(read_files(gateway.metrics.folder))[REQUESTS.name].items()
    series: Counter[Series] = Counter()
    for key, values in rows:
        labels = dict(key)
        if values[0]:
            series[labels["model"], labels["version"], labels["protocol"], labels["code"]] = int(values[0])
    return series


def fail(*arguments: Any, **options: Any) -> Any:
    raise RuntimeError("secret")


@contextlib.contextmanager
def counts(gateway: Serving, *expected: Series) -> Iterator[None]:
    """Expects these requests to be counted in the block, and no others."""
    before = counted(gateway)
    yield
    until(lambda: counted(gateway) - before == Counter(expected))


# Functions on the way of a request, from the first to the last.
STAGES = {
    "headers": ("serve.http.request_headers.apply_headers",),
    "admission": ("serve.gateway.dataplane.DataPlane.check_room", "serve.batching.batcher.Batcher.admit"),
    "parsing": ("serve.http.classify.ClassifyCall",),
    "probing": ("models.images.decoder.Decoder.probe",),
    "decoding": ("models.images.decoder.read_png",),
    "queueing": ("serve.batching.batcher.Batcher.submit",),
    "ranking": ("serve.http.responses.best_classes",),
    "rendering": ("serve.http.responses.stages_ms",),
    "compression": ("serve.http.compression.compress",),
    "heads": ("serve.http.http1.connection.response_head", "serve.http.http1.asgi_cycle.response_head"),
}
BODIES = {"direct": DIGIT, "hot": DIGIT, "large": DIGIT + LARGE}


def fail_but_for_faults(status: int, headers: Any) -> bytes:
    return response_head(status, headers) if status == 500 else fail()


# A direct request is not parsed: its body is the image.
@pytest.mark.parametrize(
    ("stage", "body"), [(stage, body) for stage in STAGES for body in BODIES if (stage, body) != ("parsing", "direct")]
)
def test_a_fault_over_http_is_counted_as_it_is_answered(
    gateway: Serving, monkeypatch: pytest.MonkeyPatch, stage: str, body: str
) -> None:
    for function in STAGES[stage]:
        monkeypatch.setattr(function, fail_but_for_faults if stage == "heads" else fail)
    # `read_png` runs where errors of decoders are refusals: an image may cause any error in them.
    code = "400" if stage == "decoding" else "500"
    with counts(gateway, (MODEL, "1", "http", code)):
        url = f"{gateway.http}/v1/models/{MODEL}/classify"
        identified = {} if body == "direct" else {"x-request-id": "mine"}
        answer = httpx.post(url, content=BODIES[body], headers={"accept-encoding": "gzip", **identified})
        assert (str(answer.status_code), answer.headers["content-type"]) == (code, "application/json")
        assert code == "400" or answer.json() == FAULT


@pytest.mark.parametrize("body", BODIES)
def test_a_fault_after_the_answer_does_not_change_its_code(
    gateway: Serving, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    monkeypatch.setattr("serve.telemetry.recorder.ModelRecorder.request", fail)
    with counts(gateway, (MODEL, "1", "http", "200")):
        answer = httpx.post(f"{gateway.http}/v1/models/{MODEL}/classify", content=BODIES[body])
        assert answer.status_code == 200


def test_an_error_that_cannot_be_sent_is_counted_as_a_fault(gateway: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.http.app.error_response", fail)
    monkeypatch.setattr("serve.http.direct.error_response", fail)
    for body in (b"no image", bytes(MAX_PLAIN_BYTES + 1)):
        with counts(gateway, (MODEL, "1", "http", "500")):
            answer = httpx.post(f"{gateway.http}/v1/models/{MODEL}/classify", content=body)
            assert (answer.status_code, answer.json()) == (500, FAULT)


def test_a_fault_while_a_head_is_read_is_answered(gateway: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.http.http1.connection.parse_head", fail)
    answer = httpx.get(f"{gateway.http}/v2", headers={"x-unseen": "1"})
    assert (answer.status_code, answer.json()) == (500, FAULT)


def grpc_code(call: Callable[[], Any]) -> str:
    try:
        call()
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


def infer_request(model: str = MODEL, version: str = "") -> inference_pb.ModelInferRequest:
    # With an id, it takes the general way each time.
    request = inference_pb.ModelInferRequest(model_name=model, model_version=version, id="mine")
    request.inputs.add(name="image", datatype="UINT8", shape=[1, 28, 28, 1])
    request.raw_input_contents.append(np.zeros(28 * 28, np.uint8).tobytes())
    return request


GRPC_STAGES = {
    "lookup": "serve.gateway.dataplane.DataPlane.find",
    "parsing": "serve.grpc.inference._plain_work",
    "options": "serve.grpc.classifier._options",
    "admission": "serve.batching.batcher.Batcher.admit",
    "queueing": "serve.batching.batcher.Batcher.submit",
    "ranking": "serve.grpc.classifier.best_classes",
    "rendering": "serve.grpc.inference.render_bytes",
    "recording": "serve.telemetry.recorder.ModelRecorder.request",
}


@pytest.mark.parametrize("stage", GRPC_STAGES)
def test_a_fault_over_grpc_is_counted_as_it_is_answered(
    gateway: Serving, channel: grpc.Channel, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    monkeypatch.setattr(GRPC_STAGES[stage], fail)
    classifier, inference = ClassifierStub(channel), GRPCInferenceServiceStub(channel)  # type: ignore[no-untyped-call]
    before = counted(gateway)
    image = classifier_pb.ClassifyRequest(model=MODEL, images=[DIGIT])
    codes = [grpc_code(lambda: classifier.Classify(image)), grpc_code(lambda: inference.ModelInfer(infer_request()))]
    assert "INTERNAL" in codes
    model, version = (MODEL, "1") if stage != "lookup" else (MODEL, "")
    expected = Counter((model, version, "grpc", code) for code in codes)
    until(lambda: counted(gateway) - before == expected)


def test_a_failed_log_changes_no_answer(gateway: Serving, channel: grpc.Channel) -> None:
    inference = GRPCInferenceServiceStub(channel)  # type: ignore[no-untyped-call]
    gateway.plane.observers.append(fail)
    try:
        with counts(gateway, (MODEL, "1", "grpc", "OK"), (MODEL, "1", "http", "200")):
            assert grpc_code(lambda: inference.ModelInfer(infer_request())) == "OK"
            assert httpx.post(f"{gateway.http}/predictions/{MODEL}", content=DIGIT).status_code == 200
    finally:
        gateway.plane.observers.clear()


PATHS = (
    "/v1/models/{}/classify", "/v1/models/{}:predict", "/predictions/{}", "/v2/models/{}/infer",
    "/v1/models/{}/versions/7/classify", "/v2/models/{}/versions/7/infer",
)  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_unknown_models_share_one_series(gateway: Serving, path: str) -> None:
    with counts(gateway, *[("", "", "http", "404")] * 3):
        for name in ("typo", "lenet5%2Dmnists", "%22%7B"):
            assert httpx.post(gateway.http + path.format(name), content=DIGIT).status_code == 404


HOT = f"/v1/models/{MODEL}/classify".encode()
REFUSED_EARLY = {
    "no HTTP": (b"nonsense\r\n\r\n", "400"),
    "no host": (b"GET /v2 HTTP/1.1\r\n\r\n", "400"),
    "a large head": (b"GET /" + bytes(100_000).replace(b"\0", b"x") + b" HTTP/1.1\r\n\r\n", "431"),
    "an unknown coding": (b"POST " + HOT + b" HTTP/1.1\r\nhost: here\r\ntransfer-encoding: gzip, chunked\r\n\r\n", "501"),
    "an unknown version": (b"GET /v2 HTTP/3.0\r\nhost: here\r\n\r\n", "505"),
    "a slow head": (b"POST " + HOT, "408"),
    "a slow body of a hot request": (b"POST " + HOT + b" HTTP/1.1\r\nhost: here\r\ncontent-length: 9\r\n\r\nabc", "408"),
}  # fmt: skip


@pytest.fixture(scope="module")
def strict(start_gateway: StartGateway) -> Iterator[Serving]:
    limits = {"header_seconds": 0.5, "deadline_ms": 500, "bodies_bytes": 800_000, "body_bytes": 800_000}
    with start_gateway(limits=limits, models=[{"name": MODEL}]) as gateway:
        yield gateway


@pytest.mark.parametrize(("sent", "status"), REFUSED_EARLY.values(), ids=REFUSED_EARLY)
def test_requests_that_are_refused_before_their_model_is_known_are_counted(
    strict: Serving, sent: bytes, status: str
) -> None:
    with counts(strict, ("", "", "http", status)), strict.connect() as client:
        client.sendall(sent)
        assert receive_all(client).startswith(b"HTTP/1.1 %s " % status.encode())


def test_a_request_beyond_the_connection_limit_is_counted(start_gateway: StartGateway) -> None:
    with start_gateway(limits={"connections": 1}) as gateway, gateway.connect() as first:
        first.sendall(b"GET /v2 HTTP/1.1\r\nhost: here\r\n\r\n")
        assert first.recv(65536).startswith(b"HTTP/1.1 200 ")
        with counts(gateway, ("", "", "http", "503")), gateway.connect() as second:
            second.sendall(b"GET /v2 HTTP/1.1\r\nhost: here\r\n\r\n")
            assert receive_all(second).startswith(b"HTTP/1.1 503 ")


def test_a_body_beyond_the_memory_is_counted(strict: Serving) -> None:
    begun = b"POST " + HOT + b" HTTP/1.1\r\nhost: here\r\ncontent-length: 700000\r\n\r\n" + bytes(600_000)
    with (
        counts(strict, ("", "", "http", "408"), ("", "", "http", "503")),
        strict.connect() as first,
        strict.connect() as second,
    ):
        first.sendall(begun)
        second.sendall(begun)
        assert {receive_all(client)[:13] for client in (first, second)} == {b"HTTP/1.1 408 ", b"HTTP/1.1 503 "}


def test_a_slow_body_is_counted_once(strict: Serving) -> None:
    """Its model is known if the application reads the body."""
    head = b"POST " + HOT + b" HTTP/1.1\r\nhost: here\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"
    before = counted(strict)
    with strict.connect() as client:
        client.sendall(head)
        assert receive_all(client).startswith(b"HTTP/1.1 408 ")
    until(lambda: counted(strict) != before and strict.plane.in_flight == 0)
    assert [series[0] for series in (counted(strict) - before).elements()] == [MODEL]


def test_only_requests_for_inference_are_counted(gateway: Serving) -> None:
    with counts(gateway):
        for path in ("/v2/models/typo", "/v1/models/typo", "/nowhere", "/v2/models/typo/infer"):
            assert httpx.get(gateway.http + path).status_code in (404, 405)


def test_other_models_over_grpc_are_counted(gateway: Serving, channel: grpc.Channel) -> None:
    classifier, inference = ClassifierStub(channel), GRPCInferenceServiceStub(channel)  # type: ignore[no-untyped-call]
    with counts(gateway, *[("", "", "grpc", "NOT_FOUND")] * 4):
        for name in ("typo", ""):
            assert grpc_code(partial(inference.ModelInfer, infer_request(name))) == "NOT_FOUND"
            image = classifier_pb.ClassifyRequest(model=name, images=[DIGIT])
            assert grpc_code(partial(classifier.Classify, image)) == "NOT_FOUND"
    with counts(gateway, (MODEL, "", "grpc", "NOT_FOUND")):
        assert grpc_code(lambda: inference.ModelInfer(infer_request(MODEL, "7"))) == "NOT_FOUND"
    with counts(gateway, (BROKEN, "", "grpc", "UNAVAILABLE")):
        assert grpc_code(lambda: inference.ModelInfer(infer_request(BROKEN))) == "UNAVAILABLE"


def test_messages_that_are_refused_unread_are_counted(gateway: Serving, channel: grpc.Channel) -> None:
    classifier = ClassifierStub(channel)  # type: ignore[no-untyped-call]
    image = classifier_pb.ClassifyRequest(model=MODEL, images=[DIGIT, bytes(1000)])
    with counts(gateway, ("", "", "grpc", "UNIMPLEMENTED")):
        assert grpc_code(lambda: classifier.Classify(image, compression=grpc.Compression.Gzip)) == "UNIMPLEMENTED"
    large = classifier_pb.ClassifyRequest(model=MODEL, images=[bytes(gateway.plane.limits.body_bytes + 2**17)])
    with (
        grpc.insecure_channel(gateway.grpc.removeprefix("grpc://"), [("grpc.max_send_message_length", -1)]) as other,
        counts(gateway, ("", "", "grpc", "RESOURCE_EXHAUSTED")),
    ):
        stub = ClassifierStub(other)  # type: ignore[no-untyped-call]
        assert grpc_code(lambda: stub.Classify(large)) == "RESOURCE_EXHAUSTED"


def test_a_model_that_does_not_serve_is_counted_under_its_name(gateway: Serving) -> None:
    with counts(gateway, (BROKEN, "", "http", "503"), (f"{BROKEN}-tensor", "", "http", "503")):
        for name in (BROKEN, f"{BROKEN}-tensor"):
            assert httpx.post(f"{gateway.http}/v2/models/{name}/infer", content=TENSOR, headers=JSON).status_code == 503
    with counts(gateway, (MODEL, "", "http", "404")):
        assert httpx.post(f"{gateway.http}/v2/models/{MODEL}/versions/7/infer", content=TENSOR).status_code == 404
