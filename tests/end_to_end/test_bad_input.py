"""Invalid requests get a clear error, the same on both protocols, and do not affect other requests."""

from __future__ import annotations

import gzip
import io
import json
import socket
import zlib
from collections.abc import Iterator

import grpc
import httpx
import numpy as np
import pytest
from PIL import Image

from convoy.protos import classifier_pb2, open_inference_pb2
from convoy.protos.classifier_pb2_grpc import ClassifierStub
from convoy.protos.open_inference_pb2_grpc import GRPCInferenceServiceStub
from models.artifact import BUNDLED
from serve.config.schema import Settings
from tests.artifacts import POISON, quadrant_image

GOOD = (BUNDLED / "samples" / "mnist-0-7.png").read_bytes()


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def bomb() -> bytes:
    """A small PNG whose header declares 400 million pixels."""
    small = encoded(Image.new("L", (1, 1)))
    head = bytearray(small)
    head[16:24] = (20_000).to_bytes(4, "big") * 2
    head[29:33] = zlib.crc32(bytes(head[12:29])).to_bytes(4, "big")
    return bytes(head)


PHOTO = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)), "JPEG")

BAD_IMAGES = {
    "text": (b"this is no image", 400, "INVALID_ARGUMENT"),
    "zeros": (bytes(1000), 400, "INVALID_ARGUMENT"),
    "truncated JPEG": (PHOTO[: len(PHOTO) // 2], 400, "INVALID_ARGUMENT"),
    "truncated PNG": (GOOD[: len(GOOD) // 2], 400, "INVALID_ARGUMENT"),
    "decompression bomb": (bomb(), 413, "RESOURCE_EXHAUSTED"),
}


@pytest.fixture(autouse=True)
def the_next_request_is_answered(http: httpx.Client, classifier: ClassifierStub) -> Iterator[None]:
    yield
    answer = http.post("/v1/models/lenet5-mnist/classify", content=GOOD)
    assert answer.json()["predictions"][0]["classes"][0]["label"] == "7"
    over_grpc = classifier.Classify(classifier_pb2.ClassifyRequest(model="lenet5-mnist", images=[GOOD]))
    assert over_grpc.predictions[0].classes[0].label == "7"


def refused(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    document = answer.json()
    assert list(document) == ["error"]
    assert "Traceback" not in document["error"]
    assert "File " not in document["error"]
    return str(document["error"])


@pytest.mark.parametrize(("body", "status", "code"), BAD_IMAGES.values(), ids=BAD_IMAGES)
def test_a_bad_image_is_refused_on_both_protocols(
    http: httpx.Client, classifier: ClassifierStub, body: bytes, status: int, code: str
) -> None:
    over_http = refused(http.post("/v1/models/lenet5-mnist/classify", content=body), status)
    with pytest.raises(grpc.RpcError) as caught:
        classifier.Classify(classifier_pb2.ClassifyRequest(model="lenet5-mnist", images=[body]))
    assert caught.value.code().name == code
    assert caught.value.details() == over_http


def test_one_bad_image_of_several_is_named(http: httpx.Client) -> None:
    files = [("image", ("a.png", GOOD)), ("image", ("b.png", b"no image"))]
    assert "image 1" in refused(http.post("/v1/models/lenet5-mnist/classify", files=files), 400)


def test_a_body_over_the_limit_is_refused(http: httpx.Client, server: Settings, classifier: ClassifierStub) -> None:
    limit = server.limits.body_bytes
    too_much = bytes(limit + 1)
    assert str(limit) in refused(http.post("/v1/models/lenet5-mnist/classify", content=too_much), 413)
    assert str(limit) in refused(http.post("/v1/models/lenet5-mnist/classify", content=iter([too_much])), 413)
    packed = gzip.compress(bytes(4 * limit))
    headers = {"content-encoding": "gzip"}
    assert str(limit) in refused(http.post("/v1/models/lenet5-mnist/classify", content=packed, headers=headers), 413)
    with pytest.raises(grpc.RpcError) as caught:
        classifier.Classify(classifier_pb2.ClassifyRequest(model="lenet5-mnist", images=[bytes(limit + 200_000)]))
    assert caught.value.code().name == "RESOURCE_EXHAUSTED"


def test_unknown_models_and_versions_are_not_found(http: httpx.Client, classifier: ClassifierStub) -> None:
    for path in ("/v1/models/lenet5-mnsit/classify", "/v2/models/lenet5-mnsit/infer"):
        assert "lenet5-mnist" in refused(http.post(path, content=GOOD), 404)
    refused(http.post("/v1/models/lenet5-mnist/versions/7/classify", content=GOOD), 404)
    refused(http.get("/v2/models/nobody"), 404)
    for model, version in (("lenet5-mnsit", ""), ("lenet5-mnist", "7")):
        with pytest.raises(grpc.RpcError) as caught:
            classifier.Classify(classifier_pb2.ClassifyRequest(model=model, version=version, images=[GOOD]))
        assert caught.value.code().name == "NOT_FOUND"


def test_unknown_paths_and_methods_are_refused(http: httpx.Client) -> None:
    refused(http.get("/nowhere"), 404)
    refused(http.get("/v1/models/lenet5-mnist/classify"), 405)
    refused(http.post("/v2"), 405)


def test_unknown_content_encodings_are_refused(http: httpx.Client) -> None:
    headers = {"content-encoding": "br"}
    assert "gzip" in refused(http.post("/v1/models/lenet5-mnist/classify", content=GOOD, headers=headers), 415)
    headers = {"content-encoding": "gzip"}
    refused(http.post("/v1/models/lenet5-mnist/classify", content=GOOD, headers=headers), 400)


@pytest.mark.parametrize("options", ["top_k=0", "top_k=-1", "top_k=two", "top_k=1.5", "top_k="])
def test_bad_options_are_refused(http: httpx.Client, options: str) -> None:
    if options == "top_k=":  # an empty value is ignored
        assert http.post(f"/v1/models/lenet5-mnist/classify?{options}", content=GOOD).status_code == 200
    else:
        assert "top_k" in refused(http.post(f"/v1/models/lenet5-mnist/classify?{options}", content=GOOD), 400)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b"{"),
        ("application/json", b"[]"),
        ("application/json", b'{"images": "x"}'),
        ("application/json", b'{"images": ["***"]}'),
        ("application/json", b'{"images": [1]}'),
        ("application/json", b'{"images": []}'),
        ("multipart/form-data; boundary=x", b"--y\r\n"),
        ("multipart/form-data", b"nothing"),
        ("image/png", b""),
    ],
)
def test_malformed_classify_requests_are_refused(http: httpx.Client, kind: str, body: bytes) -> None:
    refused(http.post("/v1/models/lenet5-mnist/classify", content=body, headers={"content-type": kind}), 400)


BAD_TENSORS = {
    "wrong datatype": ("input", "FP64", [1, 1, 32, 32], 8192),
    "wrong shape": ("input", "FP32", [1, 32, 32], 4096),
    "no rows": ("input", "FP32", [0, 1, 32, 32], 0),
    "too few bytes": ("input", "FP32", [1, 1, 32, 32], 4095),
    "too many bytes": ("input", "FP32", [1, 1, 32, 32], 4097),
    "wrong name": ("inputs", "FP32", [1, 1, 32, 32], 4096),
    "unknown datatype": ("input", "FP33", [1, 1, 32, 32], 4096),
    "negative size": ("input", "FP32", [-1, 1, 32, 32], 4096),
}


@pytest.mark.parametrize(("name", "datatype", "shape", "size"), BAD_TENSORS.values(), ids=BAD_TENSORS)
def test_a_bad_tensor_is_refused_on_both_protocols(
    http: httpx.Client, inference: GRPCInferenceServiceStub, name: str, datatype: str, shape: list[int], size: int
) -> None:
    tensor = {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}
    head = json.dumps({"inputs": [tensor]}).encode()
    headers = {"inference-header-content-length": str(len(head))}
    over_http = refused(
        http.post("/v2/models/lenet5-mnist-tensor/infer", content=head + bytes(size), headers=headers), 400
    )
    request = open_inference_pb2.ModelInferRequest(model_name="lenet5-mnist-tensor", raw_input_contents=[bytes(size)])
    request.inputs.add(name=name, datatype=datatype, shape=shape)
    with pytest.raises(grpc.RpcError) as caught:
        inference.ModelInfer(request)
    assert caught.value.code().name == "INVALID_ARGUMENT"
    assert caught.value.details() == over_http


@pytest.mark.parametrize("length", ["-1", "x", "999999", "1"])
def test_a_bad_header_length_is_refused(http: httpx.Client, length: str) -> None:
    headers = {"inference-header-content-length": length}
    refused(http.post("/v2/models/lenet5-mnist-tensor/infer", content=b'{"inputs": []}', headers=headers), 400)


def test_an_engine_failure_fails_only_its_own_batch(http: httpx.Client, classifier: ClassifierStub) -> None:
    poison = encoded(Image.fromarray(quadrant_image(1, POISON)))
    healthy = encoded(Image.fromarray(quadrant_image(2)))
    refused(http.post("/v1/models/faulty/classify", content=poison), 500)
    with pytest.raises(grpc.RpcError) as caught:
        classifier.Classify(classifier_pb2.ClassifyRequest(model="faulty", images=[poison]))
    assert caught.value.code().name == "INTERNAL"
    answer = http.post("/v1/models/faulty/classify", content=healthy)
    assert answer.json()["predictions"][0]["classes"][0]["label"] == "bottom left"


def test_a_passed_deadline_is_an_error(http: httpx.Client, classifier: ClassifierStub) -> None:
    image = encoded(Image.fromarray(quadrant_image(0)))
    headers = {"x-request-timeout-ms": "5"}
    refused(http.post("/v1/models/slow/classify", content=image, headers=headers), 504)
    with pytest.raises(grpc.RpcError) as caught:
        classifier.Classify(classifier_pb2.ClassifyRequest(model="slow", images=[image]), timeout=0.02)
    assert caught.value.code().name == "DEADLINE_EXCEEDED"


def test_malformed_http_is_answered_in_json(server: Settings) -> None:
    with socket.create_connection(("127.0.0.1", server.listen.http_port), timeout=10) as connection:
        connection.sendall(b"NONSENSE\r\n\r\n")
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 400")
    assert answer.endswith(b'{"error":"malformed HTTP request"}')


def test_an_incomplete_body_is_dropped(server: Settings) -> None:
    with socket.create_connection(("127.0.0.1", server.listen.http_port), timeout=10) as connection:
        connection.sendall(
            b"POST /v1/models/lenet5-mnist/classify HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\nhalf"
        )


def test_the_page_serves_no_files_outside_its_folder(http: httpx.Client) -> None:
    for path in ("/page/../config.py", "/page/%2e%2e/config.py", "/samples/..%2f..%2fcompile.py"):
        assert http.get(path).status_code == 404
