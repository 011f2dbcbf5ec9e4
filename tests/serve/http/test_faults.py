"""Unexpected errors: responses, metrics, logs and observers report them consistently, for every API of the server."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from serve.telemetry.definitions import FAILED_SECONDS, REQUESTS
from serve.telemetry.exposition import total
from serve.telemetry.mmap_store import read_files
from serve.telemetry.request_events import FIELDS, RequestEvent
from tests.serve.listeners import Serving, StartGateway
from tests.waiting import until

DIGIT = (BUNDLED / "samples" / "mnist-0-7.png").read_bytes()
MODEL = "lenet5-mnist"
FAULT_TEXT = "internal error; the server's log has it"
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def gateway(start_gateway: StartGateway) -> Iterator[Serving]:
    with start_gateway(models=[{"name": MODEL}]) as gateway:
        yield gateway


@pytest.fixture
def channel(gateway: Serving) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(gateway.grpc.removeprefix("grpc://")) as channel:
        yield channel


@pytest.fixture
def broken(gateway: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("secret")

    for method in ("classify", "run"):
        monkeypatch.setattr(gateway.plane, method, fail)
    monkeypatch.setattr("serve.batching.batcher.Batcher.submit", fail)
    monkeypatch.setattr(gateway.repository, "index", fail)


def codes(gateway: Serving) -> Counter[str]:
    """Requests to the model by code, from the metrics."""
    totals = total(read_files(gateway.metrics.folder))
    rows = {tuple(dict(key)[name] for name in ("model", "code")): row[0] for key, row in totals[REQUESTS.name].items()}
    return Counter({code: int(number) for (model, code), number in rows.items() if model == MODEL and number})


def failed_seconds(gateway: Serving) -> float:
    totals = total(read_files(gateway.metrics.folder))
    return float(sum(row[0] for key, row in totals[FAILED_SECONDS.name].items() if dict(key)["model"] == MODEL))


@contextmanager
def one_fault(gateway: Serving, caplog: pytest.LogCaptureFixture, code: str, requests: int = 1) -> Iterator[list[str]]:
    """Expects `requests` unexpected errors within the block. Yields the request ids of their log records, set after the block."""
    finished: list[RequestEvent] = []
    before, seconds, logged = codes(gateway), failed_seconds(gateway), list[str]()
    gateway.plane.observers.append(finished.append)
    caplog.clear()
    try:
        with caplog.at_level(logging.ERROR, "convoy"):
            yield logged
        until(lambda: codes(gateway) - before == {code: requests})
        until(lambda: failed_seconds(gateway) > seconds)
    finally:
        gateway.plane.observers.clear()
    assert [(event.code, event.error) for event in finished] == [(code, FAULT_TEXT)] * requests
    faults = [record for record in caplog.records if record.exc_info and "secret" in str(record.exc_info[1])]
    assert len(faults) == requests
    logged += [getattr(record, FIELDS)["request_id"] for record in faults]
    assert sorted(logged) == sorted(event.timings.id for event in finished)
    assert all(logged)


IMAGE = orjson.dumps({"instances": [[[0] * 28] * 28]})
TENSOR = orjson.dumps(
    {"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 28, 28, 1], "data": [0] * 28 * 28}]}
)
HOT = {
    "small": (f"/v1/models/{MODEL}/classify", DIGIT, {}),
    "large": (f"/v1/models/{MODEL}/classify", bytes(MAX_PLAIN_BYTES + 1), {}),
    "with a query": (f"/v1/models/{MODEL}/classify?top_k=1", DIGIT, {}),
    "KServe": (f"/v1/models/{MODEL}:predict", IMAGE, JSON),
    "TorchServe": (f"/predictions/{MODEL}", DIGIT, {}),
    "infer": (f"/v2/models/{MODEL}/infer", TENSOR, JSON),
}


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize("kind", HOT)
def test_a_fault_over_http_is_reported_once(gateway: Serving, caplog: pytest.LogCaptureFixture, kind: str) -> None:
    path, body, headers = HOT[kind]
    with one_fault(gateway, caplog, "500") as logged:
        answer = httpx.post(gateway.http + path, content=body, headers={"x-request-id": "mine", **headers})
    assert (answer.status_code, answer.json()) == (500, {"error": FAULT_TEXT})
    assert answer.headers["x-request-id"] == "mine"
    assert logged == ["mine"]


@pytest.mark.usefixtures("broken")
def test_a_request_without_an_id_gets_one(gateway: Serving, caplog: pytest.LogCaptureFixture) -> None:
    with one_fault(gateway, caplog, "500") as logged:
        answer = httpx.post(f"{gateway.http}/v1/models/{MODEL}/classify", content=DIGIT)
    assert logged == [answer.headers["x-request-id"]]


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize("request_id", ["mine", ""])
def test_a_fault_on_a_cold_path_is_reported_once(
    gateway: Serving, caplog: pytest.LogCaptureFixture, request_id: str
) -> None:
    with caplog.at_level(logging.ERROR):
        answer = httpx.post(
            f"{gateway.http}/v2/repository/index", headers={"x-request-id": request_id} if request_id else {}
        )
    assert (answer.status_code, answer.json()) == (500, {"error": FAULT_TEXT})
    (record,) = caplog.records  # not logged again by uvicorn
    assert record.name == "convoy.requests"
    assert getattr(record, FIELDS)["request_id"] == answer.headers["x-request-id"]
    assert request_id in ("", answer.headers["x-request-id"])
    assert httpx.get(f"{gateway.http}/v2").status_code == 200


def refusal(call: Callable[[], Any]) -> tuple[str, str | None]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code().name, caught.value.details()


def classify_request() -> classifier_pb.ClassifyRequest:
    return classifier_pb.ClassifyRequest(model=MODEL, images=[DIGIT], id="mine")


def infer_request() -> inference_pb.ModelInferRequest:
    request = inference_pb.ModelInferRequest(model_name=MODEL, id="mine")
    request.inputs.add(name="image", datatype="UINT8", shape=[1, 28, 28, 1])
    request.raw_input_contents.append(np.zeros(28 * 28, np.uint8).tobytes())
    return request


@pytest.mark.usefixtures("broken")
def test_a_fault_over_grpc_is_reported_once(
    gateway: Serving, channel: grpc.Channel, caplog: pytest.LogCaptureFixture
) -> None:
    classifier, inference = ClassifierStub(channel), GRPCInferenceServiceStub(channel)  # type: ignore[no-untyped-call]
    for call in (
        lambda: classifier.Classify(classify_request()),
        lambda: inference.ModelInfer(infer_request()),
    ):
        with one_fault(gateway, caplog, "INTERNAL") as logged:
            assert refusal(call) == ("INTERNAL", FAULT_TEXT)
        assert logged == ["mine"]


@pytest.mark.usefixtures("broken")
def test_a_fault_in_a_stream_is_reported_once_per_request(
    gateway: Serving, channel: grpc.Channel, caplog: pytest.LogCaptureFixture
) -> None:
    """The stream continues: each request gets its own response."""
    classifier, inference = ClassifierStub(channel), GRPCInferenceServiceStub(channel)  # type: ignore[no-untyped-call]
    with one_fault(gateway, caplog, "INTERNAL", 2):
        answers = list(classifier.ClassifyStream(iter([classify_request()] * 2)))
        assert [(answer.error, answer.id) for answer in answers] == [(FAULT_TEXT, "mine")] * 2
    with one_fault(gateway, caplog, "INTERNAL", 2):
        responses = list(inference.ModelStreamInfer(iter([infer_request()] * 2)))
        assert [response.error_message for response in responses] == [FAULT_TEXT] * 2


@pytest.mark.usefixtures("broken")
def test_a_fault_in_a_repository_call_is_logged(channel: grpc.Channel, caplog: pytest.LogCaptureFixture) -> None:
    inference = GRPCInferenceServiceStub(channel)  # type: ignore[no-untyped-call]
    with caplog.at_level(logging.ERROR, "convoy"):
        call = refusal(lambda: inference.RepositoryIndex(inference_pb.RepositoryIndexRequest()))
    assert call == ("INTERNAL", FAULT_TEXT)
    assert "secret" in caplog.text


@pytest.mark.parametrize("identifier", ["two\nlines", "é", "x" * 1000, "\r\nset-cookie: a=b"])
def test_an_error_is_answered_if_the_id_does_not_fit_a_header(gateway: Serving, identifier: str) -> None:
    """In the Open Inference Protocol an id may be any text. Errors must still be answered and counted under their own code."""
    before = codes(gateway)
    document = {"id": identifier, "inputs": [{"name": "no", "datatype": "UINT8", "shape": [1], "data": [1]}]}
    answer = httpx.post(f"{gateway.http}/v2/models/{MODEL}/infer", content=json.dumps(document))
    assert answer.status_code == 400
    assert "no" in answer.json()["error"]
    assert not {"set-cookie", "x-request-id"} & set(answer.headers)
    until(lambda: codes(gateway) - before == {"400": 1})
