"""The model repository over HTTP and both gRPC variants: index, load, unload; and statistics of completed requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.json_format import MessageToDict

from convoy.protos import open_inference_pb2 as pb
from convoy.protos.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.artifacts import quadrant_image
from tests.end_to_end.test_load import png

MODEL = "faulty"
BOTH = (MODEL, f"{MODEL}-tensor")
IMAGE = png(quadrant_image(2))


def states(http: httpx.Client) -> dict[str, str]:
    return {entry["name"]: entry["state"] for entry in http.post("/v2/repository/index").json()}


def change_over_http(http: httpx.Client, inference: GRPCInferenceServiceStub, what: str) -> None:
    answer = http.post(f"/v2/repository/models/{MODEL}/{what}", json={})
    assert answer.json() == {"name": MODEL, what: True}


def change_as_triton(http: httpx.Client, inference: GRPCInferenceServiceStub, what: str) -> None:
    if what == "load":
        inference.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name=MODEL))
    else:
        request = pb.RepositoryModelUnloadRequest(model_name=MODEL)
        request.parameters["unload_dependents"].bool_param = True
        inference.RepositoryModelUnload(request)


def change_as_kserve(http: httpx.Client, inference: GRPCInferenceServiceStub, what: str) -> None:
    if what == "load":
        loaded = inference.RepositoryModelLoad(pb.RepositoryModelLoadRequest(repository_name=MODEL))
        assert (loaded.model_name, loaded.isLoaded) == (MODEL, True)
    else:
        unloaded = inference.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(repository_name=MODEL))
        assert (unloaded.model_name, unloaded.isUnloaded) == (MODEL, True)


@pytest.mark.parametrize("change", [change_over_http, change_as_triton, change_as_kserve])
def test_a_model_is_unloaded_and_loaded_again(
    http: httpx.Client, inference: GRPCInferenceServiceStub, change: Any
) -> None:
    change(http, inference, "unload")
    assert {states(http)[name] for name in BOTH} == {"UNAVAILABLE"}
    index = inference.RepositoryIndex(pb.RepositoryIndexRequest(ready=True)).models
    assert not {model.name for model in index} & set(BOTH)
    for name in BOTH:
        refused = http.post(f"/v2/models/{name}/infer", content=b"{}")
        assert refused.status_code == 404
        assert "/load" in refused.json()["error"]
        with pytest.raises(grpc.RpcError) as caught:
            inference.ModelReady(pb.ModelReadyRequest(name=name))
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert http.post(f"/v1/models/{MODEL}/classify", content=IMAGE).status_code == 404

    change(http, inference, "load")
    assert {states(http)[name] for name in BOTH} == {"READY"}
    answer = http.post(f"/v1/models/{MODEL}/classify", content=IMAGE)
    assert answer.json()["predictions"][0]["classes"][0]["label"] == "bottom left"


def test_the_index_is_the_same_over_both_protocols(http: httpx.Client, inference: GRPCInferenceServiceStub) -> None:
    for body, ready in ((None, False), ({}, False), ({"ready": True}, True)):
        over_http = http.post("/v2/repository/index", json=body).json()
        message = inference.RepositoryIndex(pb.RepositoryIndexRequest(ready=ready))
        over_grpc = [(model.name, model.version, model.state, model.reason) for model in message.models]
        assert [tuple(entry.values()) for entry in over_http] == over_grpc
        assert {entry["state"] for entry in over_http} == {"READY"}


def test_invalid_repository_requests_are_refused(http: httpx.Client, inference: GRPCInferenceServiceStub) -> None:
    for what in ("load", "unload"):
        assert http.post(f"/v2/repository/models/nobody/{what}").status_code == 404
        assert http.post(f"/v2/repository/models/{MODEL}/{what}", content=b"[]").status_code == 400
        bad = {"parameters": {"file:1/model.onnx": "QUJD"}}
        assert "convoy.yaml" in http.post(f"/v2/repository/models/{MODEL}/load", json=bad).json()["error"]
    assert http.post("/v2/repository/index", json={"ready": "yes"}).status_code == 400
    with pytest.raises(grpc.RpcError) as caught:
        inference.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="nobody"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert set(states(http).values()) == {"READY"}


def test_statistics_count_requests_and_runs(
    http: httpx.Client, inference: GRPCInferenceServiceStub, samples: Path
) -> None:
    name = "resnet20-cifar10"

    def read() -> dict[str, Any]:
        found: dict[str, Any] = http.get(f"/v2/models/{name}/stats").json()["model_stats"][0]
        return found

    before = read()
    image = (samples / "cifar10-1-ship.png").read_bytes()
    files = [("image", (str(number), image)) for number in range(3)]
    for _ in range(4):
        assert http.post(f"/v1/models/{name}/classify", files=files).status_code == 200
    http.post(f"/v1/models/{name}/classify", content=b"no image")

    after = read()

    def grown(*path: str) -> int:
        old, new = before, after
        for key in path:
            old, new = old[key], new[key]
        assert isinstance(old, int)
        assert isinstance(new, int)
        return new - old

    assert grown("inference_count") == 12
    assert grown("execution_count") == 4
    for span in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        assert grown("inference_stats", span, "count") == 4
        assert grown("inference_stats", span, "ns") > 0
    stages = sum(
        grown("inference_stats", span, "ns") for span in ("queue", "compute_input", "compute_infer", "compute_output")
    )
    assert stages == pytest.approx(grown("inference_stats", "success", "ns"), abs=100)
    assert grown("inference_stats", "fail", "count") == 1
    assert grown("inference_stats", "fail", "ns") > 0
    assert after["last_inference"] > before["last_inference"]
    runs_by_size = {entry["batch_size"]: entry["compute_infer"]["count"] for entry in after["batch_stats"]}
    assert runs_by_size[3] >= 4


def test_statistics_are_the_same_over_both_protocols(http: httpx.Client, inference: GRPCInferenceServiceStub) -> None:
    over_http = {model["name"]: model for model in http.get("/v2/models/stats").json()["model_stats"]}
    message = inference.ModelStatistics(pb.ModelStatisticsRequest())
    assert {model.name for model in message.model_stats} == set(over_http) == set(states(http))
    for model in message.model_stats:
        document = MessageToDict(model, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
        expected = over_http[model.name]
        assert set(document) - {"memory_usage"} == set(expected)
        assert int(document["execution_count"]) == expected["execution_count"]
    assert http.get("/v2/models/nobody/stats").status_code == 404
    assert http.get("/v2/models/lenet5-mnist/versions/7/stats").status_code == 404
