"""NaN and infinity on the wire: never an answer, a failure of its own request alone, and whose fault it is."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from convoy.protos import classifier_pb2, open_inference_pb2
from convoy.protos.classifier_pb2_grpc import ClassifierStub
from convoy.protos.open_inference_pb2_grpc import GRPCInferenceServiceStub
from serve.config.loading import parse_settings
from tests.artifacts import SIDE, quadrant_image, write_artifact
from tests.serve.listeners import Serving, serving

NO_IMAGE = [np.nan, np.inf, -np.inf, 1e38, -3e38]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, free_ports: Callable[[int], list[int]]) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("gateway")
    breaks = str(write_artifact(folder / "breaks", "breaks", nan_from=0.99))
    whole = str(write_artifact(folder / "whole", "whole"))
    members = [{"model": "breaks"}, {"model": "whole"}]
    settings = parse_settings(
        {
            "listen": dict(zip(("http_port", "grpc_port", "metrics_port"), free_ports(3), strict=True)),
            "runtime_dir": str(folder / "node"),
            "models": [
                {"name": "breaks", "artifact": breaks},
                {"name": "cached", "artifact": breaks, "cache_mb": 1},
                {"name": "whole", "artifact": whole},
            ],
            "ensembles": [
                {"name": "either", "members": members},
                {"name": "both", "members": members, "min_members": 2},
            ],
            "cascades": [{"name": "first-breaks", "stages": [{"model": "breaks", "margin": 0.1}, {"model": "whole"}]}],
        }
    )
    with serving(settings) as gateway:
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


def png(value: int) -> bytes:
    """A bright quadrant, the fourth; at 255 the model `breaks` has no answer to it."""
    out = io.BytesIO()
    Image.fromarray(quadrant_image(3, value)).save(out, "PNG")
    return out.getvalue()


def oip(name: str, datatype: str, shape: tuple[int, ...], raw: bytes) -> tuple[dict[str, str], bytes]:
    tensor = {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    return {"Inference-Header-Content-Length": str(len(head))}, head + raw


def infer(http: httpx.Client, model: str, rows: NDArray[Any]) -> httpx.Response:
    """By the Open Inference Protocol, in binary."""
    name, datatype = ("input", "FP32") if rows.dtype == np.float32 else ("image", "UINT8")
    headers, body = oip(name, datatype, rows.shape, rows.tobytes())
    return http.post(f"/v2/models/{model}/infer", headers=headers, content=body)


def tensor(value: float) -> NDArray[np.float32]:
    return np.full((1, 1, SIDE, SIDE), value, np.float32)


@pytest.mark.parametrize("model", ["breaks", "cached", "both"])
def test_an_image_without_an_answer_is_the_engines_failure(http: httpx.Client, model: str) -> None:
    for _ in range(2):  # what failed is not kept in a cache
        lost = http.post(f"/v1/models/{model}/classify", content=png(255))
        assert lost.status_code == 500
        assert "NaN or infinity" in lost.json()["error"]
    answer = http.post(f"/v1/models/{model}/classify", content=png(200))
    assert answer.status_code == 200
    assert answer.json()["predictions"][0]["classes"][0]["index"] == 3


def test_it_is_one_over_every_protocol(
    http: httpx.Client, classifier: ClassifierStub, inference: GRPCInferenceServiceStub
) -> None:
    before = failures(http)
    pixels = quadrant_image(3, 255)[np.newaxis, :, :, np.newaxis]
    document = {"inputs": [{"name": "image", "datatype": "UINT8", "shape": pixels.shape, "data": pixels.tolist()}]}
    answers = [
        infer(http, "breaks", pixels),
        http.post("/v2/models/breaks/infer", json=document),
        http.post("/v1/models/breaks:predict", json={"instances": pixels.tolist()}),
        http.post("/predictions/breaks", content=png(255)),
    ]
    assert [one.status_code for one in answers] == [500] * 4
    with pytest.raises(grpc.RpcError) as caught:
        classifier.Classify(classifier_pb2.ClassifyRequest(model="breaks", images=[png(255)]))
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


@pytest.mark.parametrize("value", NO_IMAGE)
def test_a_tensor_that_is_no_image_is_the_clients_error(
    http: httpx.Client, inference: GRPCInferenceServiceStub, value: float
) -> None:
    lost = infer(http, "whole-tensor", tensor(value))
    assert lost.status_code == 400
    assert "send normalised pixels" in lost.text
    request = open_inference_pb2.ModelInferRequest(
        model_name="whole-tensor", raw_input_contents=[tensor(value).tobytes()]
    )
    request.inputs.add(name="input", datatype="FP32", shape=(1, 1, SIDE, SIDE))
    with pytest.raises(grpc.RpcError) as caught:
        inference.ModelInfer(request)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert infer(http, "whole-tensor", tensor(0.5)).status_code == 200
    assert http.get("/v2/models/whole/ready").status_code == 200


def test_hostile_tensors_fail_nobody_else(http: httpx.Client) -> None:
    """At the same time, so that they share batches; `test_batcher` puts them into one for certain."""
    rows = np.repeat(quadrant_image(2)[np.newaxis, np.newaxis] / np.float32(255), 2, axis=0).astype(np.float32)

    def ask(number: int) -> tuple[int, list[int]]:
        hostile = number % 2 == 0
        answer = infer(http, "whole-tensor", tensor(NO_IMAGE[number % len(NO_IMAGE)]) if hostile else rows)
        if answer.status_code != 200:
            return answer.status_code, []
        logits = np.frombuffer(answer.content[int(answer.headers["Inference-Header-Content-Length"]) :], np.float32)
        return 200, logits.reshape(2, -1).argmax(axis=1).tolist()

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(64)))
    assert answers == [(400, []), (200, [2, 2])] * 32


def test_a_member_without_an_answer_has_failed_and_the_others_count(http: httpx.Client) -> None:
    for model in ("either", "first-breaks"):
        answer = http.post(f"/v1/models/{model}/classify", content=png(255)).raise_for_status().json()
        outcomes = {one["model"]: one["outcome"] for one in answer["members"]}
        assert outcomes == {"breaks": "failed", "whole": "answered"}
        best = answer["predictions"][0]["classes"]
        assert best[0]["index"] == 3
        assert sum(one["probability"] for one in best) == pytest.approx(1, abs=1e-3)
