"""Answers are correct, and the same over both protocols and in every form of request."""

from __future__ import annotations

import base64
import gzip
import io
import json
import zlib
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from convoy.cli.demo import Sample, load_samples
from convoy.client import Client
from convoy.protos import classifier_pb2, open_inference_pb2
from convoy.protos.classifier_pb2_grpc import ClassifierStub
from convoy.protos.open_inference_pb2_grpc import GRPCInferenceServiceStub
from models.artifact import BUNDLED, Artifact
from serve.config.schema import Settings

SAMPLES = load_samples()


def classify(http: httpx.Client, model: str, body: bytes, **options: Any) -> dict[str, Any]:
    answer = http.post(f"/v1/models/{model}/classify", content=body, params=options)
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def infer_request(name: str, datatype: str, shape: list[int], size: int) -> bytes:
    tensor = {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}
    return json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()


def infer_binary(http: httpx.Client, model: str, name: str, datatype: str, shape: list[int], raw: bytes) -> np.ndarray:
    head = infer_request(name, datatype, shape, len(raw))
    headers = {"inference-header-content-length": str(len(head))}
    answer = http.post(f"/v2/models/{model}/infer", content=head + raw, headers=headers)
    assert answer.status_code == 200, answer.text
    document = json.loads(answer.content[: int(answer.headers["inference-header-content-length"])])
    tail = answer.content[int(answer.headers["inference-header-content-length"]) :]
    return np.frombuffer(tail, np.float32).reshape(document["outputs"][0]["shape"])


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.path.name)
def test_samples_get_their_labels_over_both_protocols(server: Settings, sample: Sample) -> None:
    answers = []
    for url in (f"http://127.0.0.1:{server.listen.http_port}", f"grpc://127.0.0.1:{server.listen.grpc_port}"):
        with Client(url) as client:
            answers.append(client.classify(sample.model, sample.path, top_k=5).predictions)
    assert answers[0][0].classes[0].label == sample.expected
    over_http, over_grpc = answers
    assert [entry.index for entry in over_http[0].classes] == [entry.index for entry in over_grpc[0].classes]
    for ours, theirs in zip(over_http[0].classes, over_grpc[0].classes, strict=True):
        assert ours.probability == pytest.approx(theirs.probability, abs=1e-5)


def test_raw_form_and_json_requests_get_the_same_answer(http: httpx.Client, samples: Path) -> None:
    path = "/v1/models/resnet20-cifar10/classify"
    images = [file.read_bytes() for file in sorted(samples.glob("cifar10-*.png"))]
    alone = [classify(http, "resnet20-cifar10", image)["predictions"][0] for image in images]
    form = http.post(path, files=[("image", (str(number), image)) for number, image in enumerate(images)])
    text = http.post(path, json={"images": [base64.b64encode(image).decode() for image in images], "top_k": 5})
    for answer in (form, text):
        assert answer.status_code == 200, answer.text
        predictions = answer.json()["predictions"]
        for prediction, expected in zip(predictions, alone, strict=True):
            assert [c["label"] for c in prediction["classes"]] == [c["label"] for c in expected["classes"]]
            probability = expected["classes"][0]["probability"]
            assert prediction["classes"][0]["probability"] == pytest.approx(probability, abs=1e-5)


@pytest.mark.parametrize("top_k", [1, 3, 5, 7, 10, 99])
def test_top_k_limits_the_classes(http: httpx.Client, samples: Path, top_k: int) -> None:
    body = (samples / "mnist-0-7.png").read_bytes()
    classes = classify(http, "lenet5-mnist", body, top_k=top_k)["predictions"][0]["classes"]
    assert len(classes) == min(top_k, 10)
    probabilities = [entry["probability"] for entry in classes]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) <= 1 + 1e-5
    assert classes[0]["label"] == "7"


def test_stages_add_up_to_the_total(http: httpx.Client, samples: Path) -> None:
    times = classify(http, "lenet5-mnist", (samples / "mnist-0-7.png").read_bytes())["timings_ms"]
    stages = sum(value for name, value in times.items() if name != "total")
    assert stages == pytest.approx(times["total"], abs=0.01)


def test_the_request_id_is_that_of_the_client_or_generated(http: httpx.Client, samples: Path) -> None:
    body = (samples / "mnist-0-7.png").read_bytes()
    assert classify(http, "lenet5-mnist", body, id="mine")["id"] == "mine"
    assert classify(http, "lenet5-mnist", body)["id"] != classify(http, "lenet5-mnist", body)["id"]


@pytest.mark.parametrize("model", ["lenet5-mnist", "resnet20-cifar10", "squeezenet1_1-imagenet"])
def test_tensors_and_images_give_the_same_logits(
    http: httpx.Client, inference: GRPCInferenceServiceStub, samples: Path, model: str
) -> None:
    """UINT8 pixels and FP32 tensors over HTTP and gRPC."""
    steps = Artifact.load(BUNDLED / model).manifest.preprocessing
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (2, steps.size, steps.size, steps.channels), np.uint8)
    floats = ((pixels / 255 - np.array(steps.mean)) / np.array(steps.std)).transpose(0, 3, 1, 2).astype(np.float32)
    black = np.array([-mean / std for mean, std in zip(steps.mean, steps.std, strict=True)], np.float32)
    side = steps.size + 2 * steps.pad
    padded = np.broadcast_to(black[None, :, None, None], (2, steps.channels, side, side)).copy()
    padded[:, :, steps.pad : side - steps.pad, steps.pad : side - steps.pad] = floats

    from_pixels = infer_binary(http, model, "image", "UINT8", list(pixels.shape), pixels.tobytes())
    from_floats = infer_binary(http, f"{model}-tensor", "input", "FP32", list(padded.shape), padded.tobytes())
    request = open_inference_pb2.ModelInferRequest(model_name=f"{model}-tensor", raw_input_contents=[padded.tobytes()])
    request.inputs.add(name="input", datatype="FP32", shape=padded.shape)
    answer = inference.ModelInfer(request)
    from_grpc = np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(answer.outputs[0].shape)
    np.testing.assert_allclose(from_floats, from_pixels, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(from_grpc, from_floats, rtol=1e-4, atol=1e-4)


def test_json_tensors_and_raw_requests_give_the_same_logits(http: httpx.Client, samples: Path) -> None:
    body = (samples / "mnist-0-7.png").read_bytes()
    with Image.open(io.BytesIO(body)) as image:
        pixels = np.asarray(image)
    data = {"name": "image", "datatype": "UINT8", "shape": [1, 28, 28, 1], "data": pixels.ravel().tolist()}
    in_json = http.post("/v2/models/lenet5-mnist/infer", json={"id": "x", "inputs": [data], "model_name": "ignored"})
    assert in_json.status_code == 200, in_json.text
    document = in_json.json()
    assert document["id"] == "x"
    assert document["outputs"][0]["shape"] == [1, 10]
    raw = http.post("/v2/models/lenet5-mnist/infer", content=body, headers={"inference-header-content-length": "0"})
    length = int(raw.headers["inference-header-content-length"])
    logits = np.frombuffer(raw.content[length:], np.float32)
    np.testing.assert_allclose(document["outputs"][0]["data"], logits, rtol=1e-4, atol=1e-3)
    assert logits.argmax() == 7


def test_the_classification_extension_returns_the_best_classes(http: httpx.Client, samples: Path) -> None:
    image = (samples / "mnist-0-7.png").read_bytes()
    raw = len(image).to_bytes(4, "little") + image
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(raw)}}
    output = {"name": "logits", "parameters": {"classification": 2}}
    head = json.dumps({"inputs": [tensor], "outputs": [output]}).encode()
    headers = {"inference-header-content-length": str(len(head))}
    answer = http.post("/v2/models/lenet5-mnist/infer", content=head + raw, headers=headers).json()
    best = answer["outputs"][0]["data"][0].split(":")
    assert answer["outputs"][0]["shape"] == [1, 2]
    assert best[1:] == ["7", "7"]


def test_gzip_and_deflate_requests_are_accepted(http: httpx.Client, samples: Path) -> None:
    body = (samples / "mnist-0-7.png").read_bytes()
    for encoding, packed in (("gzip", gzip.compress(body)), ("deflate", zlib.compress(body))):
        answer = http.post("/v1/models/lenet5-mnist/classify", content=packed, headers={"content-encoding": encoding})
        assert answer.json()["predictions"][0]["classes"][0]["label"] == "7"


def test_metadata_is_equal_over_both_protocols(http: httpx.Client, inference: GRPCInferenceServiceStub) -> None:
    over_http = http.get("/v2").json()
    over_grpc = inference.ServerMetadata(open_inference_pb2.ServerMetadataRequest())
    assert over_http == {"name": over_grpc.name, "version": over_grpc.version, "extensions": list(over_grpc.extensions)}
    for name in http.get("/v2/models").json()["models"]:
        document = http.get(f"/v2/models/{name}").json()
        message = inference.ModelMetadata(open_inference_pb2.ModelMetadataRequest(name=name))
        assert document["versions"] == list(message.versions)
        assert document["platform"] == message.platform
        for key in ("inputs", "outputs"):
            tensors = [
                {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
                for tensor in getattr(message, key)
            ]
            assert document[key] == tensors
        config = inference.ModelConfig(open_inference_pb2.ModelConfigRequest(name=name)).config
        assert http.get(f"/v2/models/{name}/config").json()["max_batch_size"] == config.max_batch_size


def test_health_endpoints_report_ready(http: httpx.Client, inference: GRPCInferenceServiceStub) -> None:
    assert http.get("/v2/health/live").json()["live"] is True
    assert http.get("/v2/health/ready").json() == {"ready": True, "live": True}
    assert http.get("/v2/models/lenet5-mnist/ready").json() == {"name": "lenet5-mnist", "ready": True}
    assert http.get("/v2/models/lenet5-mnist/versions/1/ready").status_code == 200
    assert http.get("/-/healthz").text == "success"
    assert inference.ServerLive(open_inference_pb2.ServerLiveRequest()).live
    assert inference.ServerReady(open_inference_pb2.ServerReadyRequest()).ready
    assert inference.ModelReady(open_inference_pb2.ModelReadyRequest(name="lenet5-mnist")).ready


def test_the_page_and_its_files_are_served(http: httpx.Client) -> None:
    assert "Convoy" in http.get("/").text
    for path in (
        "/page/page.js",
        "/page/page.css",
        "/samples/index.json",
        "/samples/camera.png",
        "/v1/models",
        "/v1/explain",
    ):
        assert http.get(path).status_code == 200, path


def test_many_images_over_grpc_are_answered_in_order(classifier: ClassifierStub, samples: Path) -> None:
    images = [file.read_bytes() for file in sorted(samples.glob("mnist-*.png"))] * 12
    answer = classifier.Classify(classifier_pb2.ClassifyRequest(model="lenet5-mnist", images=images, top_k=1))
    labels = [prediction.classes[0].label for prediction in answer.predictions]
    assert labels == [file.stem.split("-")[2] for file in sorted(samples.glob("mnist-*.png"))] * 12
