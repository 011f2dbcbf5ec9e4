"""A model that cannot be loaded, on real Ray: the others keep serving, also in a new gateway, until it is repaired."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from click.testing import CliRunner

from convoy.cli import main
from convoy.protos import open_inference_pb2 as pb
from convoy.protos.open_inference_pb2_grpc import GRPCInferenceServiceStub
from serve.config.schema import Settings
from serve.deployments import local
from tests.artifacts import quadrant_image
from tests.end_to_end.test_killed_gateway import gateways
from tests.end_to_end.test_load import png, scrape, total
from tests.waiting import until

MODEL = "faulty"
OTHER = "quadrants-b"
MADE_OF_IT = ("quadrants-any", "quadrants-both", "shadow")
IMAGE = png(quadrant_image(2))


def classify(http: httpx.Client, model: str) -> httpx.Response:
    return http.post(f"/v1/models/{model}/classify", content=IMAGE)


def change(http: httpx.Client, what: str, model: str) -> httpx.Response:
    return http.post(f"/v2/repository/models/{model}/{what}")


def entry(http: httpx.Client, model: str) -> dict[str, Any]:
    found: dict[str, Any] = next(item for item in http.post("/v2/repository/index").json() if item["name"] == model)
    return found


def unavailable(server: Settings, model: str) -> float:
    return total(scrape(server, "convoy_model_unavailable"), "convoy_model_unavailable", model=model)


@pytest.fixture
def graph(http: httpx.Client, server: Settings) -> Iterator[Path]:
    """A file of the model's artifact; afterwards it is whole and the model serves."""
    folder = next(one.folder for one in server.models if one.name == MODEL)
    path = folder / "image.onnx"
    whole = path.read_bytes()
    yield path
    path.write_bytes(whole)
    for model in (MODEL, OTHER):
        assert change(http, "load", model).status_code == 200
        assert classify(http, model).status_code == 200


def check_broken(http: httpx.Client, inference: GRPCInferenceServiceStub) -> None:
    """The model and its compositions answer with the reason; no other model is affected."""
    for name in (MODEL, *MADE_OF_IT):
        answer = classify(http, name)
        assert answer.status_code == 503, name
        assert "image.onnx" in answer.json()["error"]
        assert entry(http, name)["state"] == "UNAVAILABLE"
        assert "image.onnx" in entry(http, name)["reason"]
    ready = http.get(f"/v2/models/{MODEL}/ready")
    assert (ready.status_code, ready.json()["ready"]) == (503, False)
    assert "image.onnx" in ready.json()["error"]
    assert not inference.ModelReady(pb.ModelReadyRequest(name=MODEL)).ready
    with pytest.raises(grpc.RpcError) as caught:
        inference.ModelInfer(pb.ModelInferRequest(model_name=MODEL))
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert "image.onnx" in str(caught.value.details())
    for page in ("models", "explain"):
        assert {problem["name"] for problem in http.get(f"/v1/{page}").json()["problems"]} >= {MODEL, *MADE_OF_IT}
    listed = CliRunner().invoke(main, ["models", "--url", str(http.base_url)])
    assert f"{MODEL} is UNAVAILABLE" in listed.output
    assert http.get("/v2/health/ready").status_code == 200
    for name in ("quadrants-a", "paired", "cifar10-cascade"):
        assert entry(http, name)["state"] == "READY"
    assert classify(http, "quadrants-a").status_code == 200


def test_a_failed_load_does_not_affect_other_models(
    http: httpx.Client, inference: GRPCInferenceServiceStub, graph: Path, server: Settings
) -> None:
    original = graph.read_bytes()
    assert change(http, "unload", MODEL).status_code == 200
    graph.write_bytes(b"broken")
    for _ in range(2):
        failed = change(http, "load", MODEL)
        assert failed.status_code == 500
        assert "image.onnx" in failed.json()["error"]
    check_broken(http, inference)
    assert unavailable(server, MODEL) == 1

    assert change(http, "unload", OTHER).status_code == 200
    assert classify(http, OTHER).status_code == 404
    assert change(http, "load", OTHER).status_code == 200
    assert classify(http, OTHER).status_code == 200

    graph.write_bytes(original)
    assert change(http, "load", MODEL).status_code == 200
    for name in (MODEL, *MADE_OF_IT):
        assert classify(http, name).status_code == 200, name
    assert unavailable(server, MODEL) == 0


def test_a_new_gateway_serves_the_models_that_load(
    http: httpx.Client, inference: GRPCInferenceServiceStub, graph: Path, server: Settings, channel: grpc.Channel
) -> None:
    original = graph.read_bytes()
    graph.write_bytes(b"broken")
    assert classify(http, MODEL).status_code == 200, "the loaded engine keeps serving"
    (gateway,) = gateways(server)
    os.kill(gateway, signal.SIGKILL)
    until(lambda: gateways(server) - {gateway}, patience=120)
    until(lambda: answers(http), patience=120)
    grpc.channel_ready_future(channel).result(timeout=60)
    check_broken(http, inference)
    assert {problem.name for problem in local.problems()} >= {MODEL, *MADE_OF_IT}
    for name in ("lenet5-mnist", "resnet20-cifar10", "squeezenet1_1-imagenet", "hosted", "slow", OTHER):
        assert entry(http, name)["state"] == "READY"

    graph.write_bytes(original)
    assert change(http, "load", MODEL).status_code == 200
    for name in (MODEL, *MADE_OF_IT):
        assert classify(http, name).status_code == 200, name


def answers(http: httpx.Client) -> bool:
    try:
        return classify(http, "quadrants-a").status_code == 200
    except httpx.TransportError:
        return False
