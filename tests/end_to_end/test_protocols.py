"""Features that third-party clients rely on: streams, reflection, health, compression, classification, deadlines."""

from __future__ import annotations

import asyncio
import base64
import gzip
import io
import json
import zlib
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from PIL import Image

from convoy.protos import classifier_pb2, open_inference_pb2
from convoy.protos.classifier_pb2_grpc import ClassifierStub
from convoy.protos.open_inference_pb2_grpc import GRPCInferenceServiceStub
from serve.config.schema import Settings

MODEL = "lenet5-mnist"


@pytest.fixture(scope="session")
def digit(samples: Path) -> bytes:
    return (samples / "mnist-0-7.png").read_bytes()


def image_request(image: bytes, id: str = "", model: str = MODEL) -> open_inference_pb2.ModelInferRequest:
    request = open_inference_pb2.ModelInferRequest(model_name=model, id=id)
    request.inputs.add(name="image", datatype="BYTES", shape=[1])
    request.raw_input_contents.append(len(image).to_bytes(4, "little") + image)
    return request


def test_a_stream_of_inferences_is_answered_in_order(inference: GRPCInferenceServiceStub, digit: bytes) -> None:
    bad = image_request(b"no image", "bad")
    unknown = image_request(digit, "unknown", "nobody")
    good = [image_request(digit, str(number)) for number in range(40)]
    good[0].parameters["triton_enable_empty_final_response"].bool_param = True
    answers = list(inference.ModelStreamInfer(iter([*good, bad, unknown, image_request(digit, "last")])))
    assert [answer.infer_response.id for answer in answers] == [*map(str, range(40)), "bad", "unknown", "last"]
    failed = {answer.infer_response.id: answer.error_message for answer in answers if answer.error_message}
    assert set(failed) == {"bad", "unknown"}
    assert "nobody" in failed["unknown"]
    for answer in answers:
        if not answer.error_message:
            assert np.frombuffer(answer.infer_response.raw_output_contents[0], np.float32).argmax() == 7
    assert answers[0].infer_response.parameters["triton_final_response"].bool_param
    assert not answers[1].infer_response.parameters


def test_a_stream_of_images_is_classified_in_order(classifier: ClassifierStub, samples: Path, digit: bytes) -> None:
    files = sorted(samples.glob("mnist-*.png"))
    requests = [classifier_pb2.ClassifyRequest(model=MODEL, images=[file.read_bytes()], top_k=1) for file in files]
    requests.append(classifier_pb2.ClassifyRequest(model=MODEL, images=[b"no image"], id="bad"))
    requests.append(classifier_pb2.ClassifyRequest(model=MODEL, images=[digit, digit], id="two"))
    *single, bad, two = list(classifier.ClassifyStream(iter(requests)))
    assert [answer.predictions[0].classes[0].label for answer in single] == [file.stem.split("-")[2] for file in files]
    assert (bad.id, len(bad.predictions)) == ("bad", 0)
    assert "image" in bad.error
    assert (two.id, len(two.predictions), two.error) == ("two", 2, "")


def test_reflection_lists_and_describes_the_services(channel: grpc.Channel) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)

    def ask(**question: str) -> reflection_pb2.ServerReflectionResponse:
        return next(stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(**question)])))

    names = {service.name for service in ask(list_services="").list_services_response.service}
    ours = {"inference.GRPCInferenceService", "convoy.v1.Classifier"}
    assert names >= ours | {"grpc.health.v1.Health"}
    for name in ours:
        answer = ask(file_containing_symbol=name).file_descriptor_response
        described = FileDescriptorProto.FromString(answer.file_descriptor_proto[0])
        assert name.rpartition(".")[2] in [service.name for service in described.service]


def test_the_grpc_health_service_answers(channel: grpc.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ("", "inference.GRPCInferenceService", "convoy.v1.Classifier"):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(health_pb2.HealthCheckRequest(service="nobody"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(("name", "window"), [("gzip", 31), ("deflate", 15)])
def test_requests_and_answers_are_compressed(http: httpx.Client, digit: bytes, name: str, window: int) -> None:
    raw = len(digit).to_bytes(4, "little") + digit
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    headers = {
        "inference-header-content-length": str(len(head)),
        "content-encoding": name,
        "accept-encoding": name,
    }
    path = f"/v2/models/{MODEL}/infer"
    packed = gzip.compress(head + raw) if name == "gzip" else zlib.compress(head + raw)
    with http.stream("POST", path, content=packed, headers=headers) as answer:
        packed = b"".join(answer.iter_raw())
    assert answer.status_code == 200
    assert answer.headers["content-encoding"] == name
    assert int(answer.headers["content-length"]) == len(packed)
    body = zlib.decompress(packed, window)
    length = int(answer.headers["inference-header-content-length"])
    assert json.loads(body[:length])["model_name"] == MODEL
    assert np.frombuffer(body[length:], np.float32).argmax() == 7


def test_a_raw_request_may_contain_a_tensor(http: httpx.Client) -> None:
    floats = np.random.default_rng(0).normal(size=(1, 1, 32, 32)).astype(np.float32)
    headers = {"inference-header-content-length": "0"}
    answer = http.post(f"/v2/models/{MODEL}-tensor/infer", content=floats.tobytes(), headers=headers)
    assert answer.status_code == 200, answer.text
    short = http.post(f"/v2/models/{MODEL}-tensor/infer", content=floats.tobytes()[:-4], headers=headers)
    assert short.status_code == 400


def test_classification_is_the_same_over_both_protocols(
    http: httpx.Client, inference: GRPCInferenceServiceStub, digit: bytes
) -> None:
    request = image_request(digit)
    request.outputs.add(name="logits").parameters["classification"].int64_param = 3
    raw = inference.ModelInfer(request).raw_output_contents[0]
    over_grpc, position = [], 0
    while position < len(raw):
        size = int.from_bytes(raw[position : position + 4], "little")
        over_grpc.append(raw[position + 4 : position + 4 + size].decode())
        position += 4 + size
    sent = request.raw_input_contents[0]
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(sent)}}
    output = {"name": "logits", "parameters": {"classification": 3, "binary_data": False}}
    head = json.dumps({"inputs": [tensor], "outputs": [output]}).encode()
    headers = {"inference-header-content-length": str(len(head))}
    over_http = http.post(f"/v2/models/{MODEL}/infer", content=head + sent, headers=headers).json()["outputs"][0]
    assert over_http["datatype"] == "BYTES"
    assert over_http["shape"] == [1, 3]
    assert [text.split(":")[1:] for text in over_http["data"]] == [text.split(":")[1:] for text in over_grpc]
    assert over_http["data"][0].split(":")[1:] == ["7", "7"]


def test_threshold_and_indices_are_the_same_over_both_protocols(
    http: httpx.Client, classifier: ClassifierStub, digit: bytes
) -> None:
    every = http.post(f"/v1/models/{MODEL}/classify?top_k=10", content=digit).json()["predictions"][0]["classes"]
    threshold = (every[1]["probability"] + every[2]["probability"]) / 2
    params = {"top_k": 10, "threshold": threshold, "labels": False}
    classes = http.post(f"/v1/models/{MODEL}/classify", content=digit, params=params).json()["predictions"][0][
        "classes"
    ]
    assert [entry["index"] for entry in classes] == [entry["index"] for entry in every[:2]]
    assert all("label" not in entry for entry in classes)
    request = classifier_pb2.ClassifyRequest(
        model=MODEL, images=[digit], top_k=10, threshold=threshold, indices_only=True
    )
    over_grpc = classifier.Classify(request).predictions[0].classes
    assert [(entry.index, entry.label) for entry in over_grpc] == [(entry["index"], "") for entry in classes]


def test_the_request_id_is_returned(http: httpx.Client, digit: bytes) -> None:
    answer = http.post(f"/v1/models/{MODEL}/classify", content=digit, headers={"x-request-id": "mine-1"})
    assert answer.json()["id"] == answer.headers["x-request-id"] == "mine-1"
    generated = http.post(f"/v1/models/{MODEL}/classify", content=digit)
    assert generated.json()["id"] == generated.headers["x-request-id"]
    headers = {"x-request-id": "mine-2", "inference-header-content-length": "0"}
    assert http.post(f"/v2/models/{MODEL}/infer", content=digit, headers=headers).headers["x-request-id"] == "mine-2"
    failed = http.post(f"/v1/models/{MODEL}/classify", content=b"no image", headers={"x-request-id": "mine-3"})
    assert failed.headers["x-request-id"] == "mine-3"


def test_a_deadline_of_a_microsecond_is_exceeded(
    http: httpx.Client, inference: GRPCInferenceServiceStub, digit: bytes
) -> None:
    raw = len(digit).to_bytes(4, "little") + digit
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [tensor], "parameters": {"timeout": 1}}).encode()
    headers = {"inference-header-content-length": str(len(head))}
    assert http.post(f"/v2/models/{MODEL}/infer", content=head + raw, headers=headers).status_code == 504
    request = image_request(digit)
    request.parameters["timeout"].int64_param = 1
    with pytest.raises(grpc.RpcError) as caught:
        inference.ModelInfer(request)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


def test_an_overload_over_grpc_has_a_retry_time(classifier: ClassifierStub) -> None:
    from tests.artifacts import quadrant_image
    from tests.end_to_end.test_load import png

    request = classifier_pb2.ClassifyRequest(model="slow", images=[png(quadrant_image(3))])
    calls = [classifier.Classify.future(request) for _ in range(100)]
    refused = [call for call in calls if call.code() == grpc.StatusCode.RESOURCE_EXHAUSTED]
    assert refused
    assert all(int(dict(call.trailing_metadata())["retry-after"]) >= 1 for call in refused)


def test_a_message_of_nine_megabytes_is_accepted(inference: GRPCInferenceServiceStub, large_message: bytes) -> None:
    request = open_inference_pb2.ModelInferRequest(model_name="squeezenet1_1-imagenet-tensor")
    request.inputs.add(name="input", datatype="FP32", shape=[len(large_message) // 602_112, 3, 224, 224])
    request.raw_input_contents.append(large_message)
    answer = inference.ModelInfer(request)
    assert list(answer.outputs[0].shape) == [len(large_message) // 602_112, 1000]


@pytest.fixture(scope="module")
def large_message() -> bytes:
    return np.zeros((16, 3, 224, 224), np.float32).tobytes()


def test_torchserve_and_kserve_clients_are_answered(http: httpx.Client, digit: bytes) -> None:
    alone = http.post(f"/v1/models/{MODEL}/classify", content=digit).json()["predictions"][0]["classes"]
    by_label = http.post(f"/predictions/{MODEL}", content=digit).json()
    assert list(by_label) == [entry["label"] for entry in alone]
    assert list(http.post(f"/predictions/{MODEL}/1", files={"data": digit}).json()) == list(by_label)
    assert http.get("/ping").json() == {"status": "Healthy"}
    text = base64.b64encode(digit).decode()
    with Image.open(io.BytesIO(digit)) as image:
        pixels = np.asarray(image).tolist()
    instances = [{"b64": text}, {"image_bytes": {"b64": text}}, {"data": text}, pixels, {"data": pixels}]
    answer = http.post(f"/v1/models/{MODEL}:predict", json={"instances": instances}).json()
    for prediction in answer["predictions"]:
        assert [entry["index"] for entry in prediction["classes"]] == [entry["index"] for entry in alone]
    assert http.get(f"/v1/models/{MODEL}").json() == {"name": MODEL, "ready": True}


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'{"instances": []}',
        b'{"instances": [1]}',
        b'{"instances": ["***"]}',
        b'{"instances": [[[1, 2], [3]]]}',
        b'{"instances": [[[256]]]}',
        b'{"instances": [[[1.5]]]}',
        b'{"instances": [[]]}',
        b'{"instances": [{"b64": 1}]}',
    ],
)
def test_malformed_instances_are_refused(http: httpx.Client, body: bytes) -> None:
    answer = http.post(f"/v1/models/{MODEL}:predict", content=body)
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]


def test_a_thousand_concurrent_batches_get_the_answers_of_single_ones(http: httpx.Client, server: Settings) -> None:
    generator = np.random.default_rng(3)
    largest = 5
    questions = [generator.normal(size=(size, 1, 32, 32)).astype(np.float32) for size in range(1, largest + 1)]

    def body(floats: np.ndarray) -> tuple[bytes, dict[str, str]]:
        parameters = {"binary_data_size": floats.nbytes}
        tensor = {"name": "input", "datatype": "FP32", "shape": floats.shape, "parameters": parameters}
        head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
        return head + floats.tobytes(), {"inference-header-content-length": str(len(head))}

    def logits(answer: httpx.Response) -> np.ndarray:
        assert answer.status_code == 200, answer.text
        return np.frombuffer(answer.content[int(answer.headers["inference-header-content-length"]) :], np.float32)

    requests = [body(floats) for floats in questions]
    path = f"/v2/models/{MODEL}-tensor/infer"
    alone = [logits(http.post(path, content=content, headers=headers)) for content, headers in requests]

    async def ask_all() -> list[tuple[int, np.ndarray]]:
        free = asyncio.Semaphore(server.limits.queue_rows // largest)  # at most as many rows as the queue holds
        async with httpx.AsyncClient(base_url=str(http.base_url), timeout=120) as client:

            async def ask(number: int) -> tuple[int, np.ndarray]:
                content, headers = requests[number]
                async with free:
                    return number, logits(await client.post(path, content=content, headers=headers))

            return list(await asyncio.gather(*(ask(int(number)) for number in generator.integers(0, largest, 1000))))

    for number, found in asyncio.run(ask_all()):
        np.testing.assert_allclose(found, alone[number], rtol=1e-4, atol=1e-4)
