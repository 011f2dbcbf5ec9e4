"""Logits with NaN or infinity, through the listeners: only their own request fails, with an error that names the cause."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from convoy.protos import classifier_pb2, open_inference_pb2
from convoy.protos.classifier_pb2_grpc import ClassifierStub
from convoy.protos.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.artifacts import SIDE, quadrant_image, quadrant_png, write_artifact
from tests.serve.listeners import Serving, StartGateway

NOT_AN_IMAGE = [np.nan, np.inf, -np.inf, 1e38, -3e38]
BREAKING = quadrant_png(3, 255)  # the model `breaks` answers NaN
GOOD = quadrant_png(3)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, start_gateway: StartGateway) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("models")
    breaks = str(write_artifact(folder / "breaks", "breaks", nan_from=0.99))
    sound = str(write_artifact(folder / "sound", "sound"))
    members = [{"model": "breaks"}, {"model": "sound"}]
    with start_gateway(
        models=[
            {"name": "breaks", "artifact": breaks},
            {"name": "cached", "artifact": breaks, "cache_mb": 1},
            {"name": "sound", "artifact": sound},
        ],
        ensembles=[
            {"name": "either", "members": members},
            {"name": "both", "members": members, "min_members": 2},
        ],
        cascades=[{"name": "first-breaks", "stages": [{"model": "breaks", "margin": 0.1}, {"model": "sound"}]}],
    ) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def http(gateway: Serving) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.http, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def classifier(gateway: Serving) -> Iterator[ClassifierStub]:
    with grpc.insecure_channel(gateway.grpc.removeprefix("grpc://")) as channel:
        yield ClassifierStub(channel)  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def inference(gateway: Serving) -> Iterator[GRPCInferenceServiceStub]:
    with grpc.insecure_channel(gateway.grpc.removeprefix("grpc://")) as channel:
        yield GRPCInferenceServiceStub(channel)  # type: ignore[no-untyped-call]


def oip(name: str, datatype: str, shape: tuple[int, ...], raw: bytes) -> tuple[dict[str, str], bytes]:
    """Headers and body of a request of the Open Inference Protocol with binary tensors."""
    tensor = {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    return {"Inference-Header-Content-Length": str(len(head))}, head + raw


def infer(http: httpx.Client, model: str, rows: NDArray[Any]) -> httpx.Response:
    name, datatype = ("input", "FP32") if rows.dtype == np.float32 else ("image", "UINT8")
    headers, body = oip(name, datatype, rows.shape, rows.tobytes())
    return http.post(f"/v2/models/{model}/infer", headers=headers, content=body)


def tensor(value: float) -> NDArray[np.float32]:
    return np.full((1, 1, SIDE, SIDE), value, np.float32)


@pytest.mark.parametrize("model", ["breaks", "cached", "both"])
def test_nan_for_an_image_is_an_internal_error(http: httpx.Client, model: str) -> None:
    for _ in range(2):  # a failure is not cached
        failed = http.post(f"/v1/models/{model}/classify", content=BREAKING)
        assert failed.status_code == 500
        assert "NaN or infinity" in failed.json()["error"]
    answer = http.post(f"/v1/models/{model}/classify", content=GOOD)
    assert answer.status_code == 200
    assert answer.json()["predictions"][0]["classes"][0]["index"] == 3


def test_nan_for_an_image_is_an_internal_error_in_every_protocol(
    http: httpx.Client, classifier: ClassifierStub, inference: GRPCInferenceServiceStub
) -> None:
    before = failures(http)
    pixels = quadrant_image(3, 255)[np.newaxis, :, :, np.newaxis]
    document = {"inputs": [{"name": "image", "datatype": "UINT8", "shape": pixels.shape, "data": pixels.tolist()}]}
    answers = [
        infer(http, "breaks", pixels),
        http.post("/v2/models/breaks/infer", json=document),
        http.post("/v1/models/breaks:predict", json={"instances": pixels.tolist()}),
        http.post("/predictions/breaks", content=BREAKING),
    ]
    assert [answer.status_code for answer in answers] == [500] * 4
    with pytest.raises(grpc.RpcError) as caught:
        classifier.Classify(classifier_pb2.ClassifyRequest(model="breaks", images=[BREAKING]))
    assert caught.value.code() == grpc.StatusCode.INTERNAL
    request = open_inference_pb2.ModelInferRequest(model_name="breaks", raw_input_contents=[pixels.tobytes()])
    request.inputs.add(name="image", datatype="UINT8", shape=pixels.shape)
    with pytest.raises(grpc.RpcError) as caught:
        inference.ModelInfer(request)
    assert caught.value.code() == grpc.StatusCode.INTERNAL
    assert failures(http) == before + 6


def failures(http: httpx.Client) -> int:
    statistics = http.get("/v2/models/breaks/stats").json()["model_stats"][0]
    return int(statistics["inference_stats"]["fail"]["count"])


@pytest.mark.parametrize("value", NOT_AN_IMAGE)
def test_nan_for_a_tensor_out_of_range_is_the_clients_error(
    http: httpx.Client, inference: GRPCInferenceServiceStub, value: float
) -> None:
    refused = infer(http, "sound-tensor", tensor(value))
    assert refused.status_code == 400
    assert "send normalised pixels" in refused.text
    request = open_inference_pb2.ModelInferRequest(
        model_name="sound-tensor", raw_input_contents=[tensor(value).tobytes()]
    )
    request.inputs.add(name="input", datatype="FP32", shape=(1, 1, SIDE, SIDE))
    with pytest.raises(grpc.RpcError) as caught:
        inference.ModelInfer(request)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert infer(http, "sound-tensor", tensor(0.5)).status_code == 200
    assert http.get("/v2/models/sound/ready").status_code == 200


def test_hostile_tensors_fail_no_other_request(http: httpx.Client) -> None:
    """Concurrent requests share batches. In `test_batcher` they certainly do."""
    rows = np.repeat(quadrant_image(2)[np.newaxis, np.newaxis] / np.float32(255), 2, axis=0).astype(np.float32)

    def ask(number: int) -> tuple[int, list[int]]:
        hostile = number % 2 == 0
        answer = infer(http, "sound-tensor", tensor(NOT_AN_IMAGE[number % len(NOT_AN_IMAGE)]) if hostile else rows)
        if answer.status_code != 200:
            return answer.status_code, []
        logits = np.frombuffer(answer.content[int(answer.headers["Inference-Header-Content-Length"]) :], np.float32)
        return 200, logits.reshape(2, -1).argmax(axis=1).tolist()

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(64)))
    assert answers == [(400, []), (200, [2, 2])] * 32


def test_a_member_that_answers_nan_has_failed_and_the_others_decide(http: httpx.Client) -> None:
    for model in ("either", "first-breaks"):
        answer = http.post(f"/v1/models/{model}/classify", content=BREAKING).raise_for_status().json()
        outcomes = {member["model"]: member["outcome"] for member in answer["members"]}
        assert outcomes == {"breaks": "failed", "sound": "answered"}
        classes = answer["predictions"][0]["classes"]
        assert classes[0]["index"] == 3
        assert sum(row["probability"] for row in classes) == pytest.approx(1, abs=1e-3)
