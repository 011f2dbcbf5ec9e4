"""Bodies with more elements than a request may have: refused before the elements are parsed, in every format.

Most bodies have a second error behind the number of elements: the response shows which of the two was checked first.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import io
import tracemalloc
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import numpy as np
import orjson
import pytest
from PIL import Image

from convoy.errors import InvalidInput
from convoy.protos import classifier_pb2 as classifier_pb
from convoy.protos import open_inference_pb2 as pb
from convoy.protos.classifier_pb2_grpc import ClassifierStub
from convoy.protos.experiments_pb2 import FeedbackRequest
from convoy.protos.experiments_pb2_grpc import ExperimentsStub
from convoy.protos.open_inference_pb2_grpc import GRPCInferenceServiceStub
from models.artifact import BUNDLED
from serve.http.dialects import KSERVE
from tests.serve.listeners import Serving, StartGateway

MODEL = "lenet5-mnist"
TENSORS = f"{MODEL}-tensor"
DIGIT = (BUNDLED / "samples" / "mnist-0-7.png").read_bytes()
TEXT = base64.b64encode(DIGIT).decode()
MOST = 64
MILLION = 1_000_000
INFER = f"/v2/models/{MODEL}/infer"
CLASSIFY = f"/v1/models/{MODEL}/classify"
PREDICT = f"/v1/models/{MODEL}:predict"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, start_gateway: StartGateway) -> Iterator[Serving]:
    limits = {"images_per_request": MOST, "queue_rows": 64 * MOST}
    ledger = {"url": f"sqlite:///{tmp_path_factory.mktemp('bodies') / 'ledger.db'}"}
    with start_gateway(models=[{"name": MODEL}], limits=limits, ledger=ledger) as gateway:
        yield gateway


@pytest.fixture
def http(gateway: Serving) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.http, timeout=120) as client:
        yield client
        assert client.post(CLASSIFY, content=DIGIT).status_code == 200


@pytest.fixture
def channel(gateway: Serving) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(gateway.grpc.removeprefix("grpc://"), [("grpc.max_send_message_length", -1)]) as channel:
        yield channel


def post(http: httpx.Client, path: str, body: bytes, **headers: str) -> tuple[int, str]:
    sent = {"content-encoding": "gzip", "content-type": "application/json"} | headers
    answer = http.post(path, content=gzip.compress(body, 1), headers=sent)
    return answer.status_code, str(answer.json().get("error", ""))


def refusal(call: Any, request: Any) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=120)
    return str(caught.value.code().name), str(caught.value.details())


@pytest.mark.parametrize("path", [CLASSIFY, PREDICT, f"/predictions/{MODEL}"])
def test_images_in_json_are_counted_before_one_is_decoded(http: httpx.Client, path: str) -> None:
    key = "instances" if path == PREDICT else "images"
    status, error = post(http, path, orjson.dumps({key: ["***"] * (MOST + 1)}))
    assert status == 413
    assert f"{MOST + 1} images in one request" in error
    status, error = post(http, path, orjson.dumps({key: [""] * 3 * MILLION}))
    assert status == 413
    assert "images" in error


@pytest.mark.parametrize(
    "path", [CLASSIFY, f"/predictions/{MODEL}", INFER, f"/v2/models/{TENSORS}/infer", "/v1/feedback"]
)
@pytest.mark.parametrize("unit", [b'"",', b"[],", b'{"":0},'])
def test_values_are_counted_before_json_is_parsed(http: httpx.Client, path: str, unit: bytes) -> None:
    body = b'{"images": [' + unit * MILLION + b"and this is not JSON"
    status, error = post(http, path, body)
    assert status == 413
    assert "values" in error


def test_values_of_a_json_part_before_binary_data_are_counted(http: httpx.Client) -> None:
    text = b'{"inputs": [' + b"[]," * MILLION
    declared = {"inference-header-content-length": str(len(text)), "content-type": "application/octet-stream"}
    status, error = post(http, INFER, text + DIGIT, **declared)
    assert status == 413
    assert "values" in error


@pytest.mark.parametrize("elements", [MOST + 1, 3 * MILLION])
def test_binary_elements_are_counted_before_they_are_split(http: httpx.Client, elements: int) -> None:
    tail = bytes(4 * (elements - 1)) + b"\xff\xff\xff\x7f"  # the last element claims to be longer than the body
    entry = {"name": "image", "datatype": "BYTES", "shape": [elements, 1]}
    text = orjson.dumps({"inputs": [entry | {"parameters": {"binary_data_size": len(tail)}}]})
    status, error = post(http, INFER, text + tail, **{"inference-header-content-length": str(len(text))})
    assert status == 413
    assert f"{elements} images in one request" in error


def test_elements_of_a_json_tensor_are_counted_before_they_are_read(http: httpx.Client) -> None:
    texts = {"name": "image", "datatype": "BYTES", "shape": [MOST + 1], "data": [0] * (MOST + 1)}
    numbers = {"name": "input", "datatype": "FP32", "shape": [MOST + 1, 1, 32, 32], "data": ["0"] * 5000}
    for path, entry, what in ((INFER, texts, "images"), (f"/v2/models/{TENSORS}/infer", numbers, "rows")):
        status, error = post(http, path, orjson.dumps({"inputs": [entry]}))
        assert status == 413
        assert f"{MOST + 1} {what} in one request" in error


@pytest.mark.parametrize("key", ["inputs", "outputs", "parameters"])
def test_tensors_and_parameters_are_counted_before_one_is_read(http: httpx.Client, key: str) -> None:
    data = {"name": "image", "datatype": "BYTES", "shape": [1], "data": ["x"]}
    many: Any = {str(number): [] for number in range(300)} if key == "parameters" else [0] * 300
    status, error = post(http, INFER, orjson.dumps({"inputs": [data], key: many}))
    assert status == 400
    assert f"300 {key}; 256 are allowed" in error


def test_typed_contents_are_counted_before_they_are_read(channel: grpc.Channel) -> None:
    infer = GRPCInferenceServiceStub(channel).ModelInfer  # type: ignore[no-untyped-call]
    numbers = pb.ModelInferRequest(model_name=MODEL)
    numbers.inputs.add(name="image", datatype="UINT8", shape=[MOST + 1, 28, 28, 1]).contents.uint_contents.append(256)
    code, error = refusal(infer, numbers)
    assert code == "RESOURCE_EXHAUSTED"
    assert f"{MOST + 1} rows in one request" in error
    raw = pb.ModelInferRequest(model_name=MODEL, raw_input_contents=[b"\xff" * 7])
    raw.inputs.add(name="image", datatype="BYTES", shape=[MOST + 1])
    code, error = refusal(infer, raw)
    assert code == "RESOURCE_EXHAUSTED"
    assert f"{MOST + 1} images in one request" in error


def test_fields_of_a_message_are_counted_before_it_is_parsed(channel: grpc.Channel) -> None:
    infer = GRPCInferenceServiceStub(channel)  # type: ignore[no-untyped-call]
    classify = ClassifierStub(channel)  # type: ignore[no-untyped-call]
    tensors = pb.ModelInferRequest(model_name=MODEL, inputs=[pb.ModelInferRequest.InferInputTensor()] * 100_000)
    images = classifier_pb.ClassifyRequest(model=MODEL, images=[b""] * MILLION)
    for call, request in ((infer.ModelInfer, tensors), (classify.Classify, images)):
        code, error = refusal(call, request)
        assert code == "RESOURCE_EXHAUSTED"
        assert "fields" in error
    (streamed,) = classify.ClassifyStream(iter([images]), timeout=120)
    assert "fields" in streamed.error
    (answer,) = infer.ModelStreamInfer(iter([tensors]), timeout=120)
    assert "fields" in answer.error_message


def test_feedback_items_are_counted_before_they_are_read(channel: grpc.Channel) -> None:
    feedback = ExperimentsStub(channel).SendFeedback  # type: ignore[no-untyped-call]
    code, error = refusal(feedback, FeedbackRequest(feedback=[FeedbackRequest.Item()] * 10_001))
    assert (code, "1 to 10000 items" in error) == ("INVALID_ARGUMENT", True)
    code, error = refusal(feedback, FeedbackRequest(feedback=[FeedbackRequest.Item()] * 200_000))
    assert (code, "fields" in error) == ("RESOURCE_EXHAUSTED", True)


def predict(gateway: Serving, document: Any) -> None:
    async def parse() -> None:
        await KSERVE.parse(b"", {}, orjson.dumps(document), gateway.plane.endpoints.by_name[MODEL])

    asyncio.run(parse())


@pytest.mark.parametrize("place", [0, -1])
def test_a_long_string_among_pixels_does_not_multiply_memory(gateway: Serving, place: int) -> None:
    row: list[Any] = [7] * 5000
    row[place] = "x" * 20_000  # an array of strings would take 4 bytes per character and pixel: 400 MB
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInput, match=r"instances\[0\] must hold whole numbers from 0 to 255"):
            predict(gateway, {"instances": [[row]]})
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("pixel", [True, None, 1.0, -1, 256, 2**63, "7", {}, [7], [[7]]])
def test_pixels_must_be_whole_numbers(http: httpx.Client, pixel: Any) -> None:
    for instance in ([[7, pixel]], [[[7, 7, 7]], [[7, 7, pixel]]]):
        status, error = post(http, PREDICT, orjson.dumps({"instances": [DIGIT_PIXELS, instance]}))
        assert status == 400
        assert "instances[1] must " in error


DIGIT_PIXELS = np.asarray(Image.open(io.BytesIO(DIGIT)).convert("L")).tolist()


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_request_with_the_most_images_is_answered(http: httpx.Client, depth: int) -> None:
    """As [height, width], [height, width, 1] and [height, width, 3]."""
    digit = np.asarray(Image.open(io.BytesIO(DIGIT)).convert("L"))
    pixels = digit if depth == 1 else np.repeat(digit[..., None], 1 if depth == 2 else 3, axis=2)
    answer = http.post(PREDICT, json={"instances": [pixels.tolist()] * MOST})
    assert [prediction["classes"][0]["label"] for prediction in answer.json()["predictions"]] == ["7"] * MOST


def test_the_largest_tensors_are_answered(http: httpx.Client, channel: grpc.Channel) -> None:
    rows = np.random.default_rng(0).normal(size=(MOST, 1, 32, 32)).astype(np.float32)
    entry = {"name": "input", "datatype": "FP32", "shape": rows.shape}
    url = f"/v2/models/{TENSORS}/infer"
    nested, flat = (
        http.post(url, json={"inputs": [entry | {"data": array.tolist()}]}) for array in (rows, rows.ravel())
    )
    assert nested.json()["outputs"][0]["data"] == flat.json()["outputs"][0]["data"]
    request = pb.ModelInferRequest(model_name=TENSORS)
    request.inputs.add(name="input", datatype="FP32", shape=rows.shape).contents.fp32_contents.extend(rows.ravel())
    answer = GRPCInferenceServiceStub(channel).ModelInfer(request)  # type: ignore[no-untyped-call]
    logits = np.frombuffer(answer.raw_output_contents[0], np.float32)
    np.testing.assert_allclose(logits, nested.json()["outputs"][0]["data"], rtol=1e-4, atol=1e-4)


def photo() -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(DIGIT)).convert("L").resize((1500, 1500)).save(buffer, "BMP")
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["json", "instances", "form", "raw"])
def test_a_large_image_is_answered(http: httpx.Client, kind: str) -> None:
    body = photo()
    text = base64.b64encode(body).decode()
    if kind == "json":
        answer = http.post(CLASSIFY, json={"images": [text]})
    elif kind == "instances":
        answer = http.post(PREDICT, json={"instances": [{"image_bytes": {"b64": text}}]})
    elif kind == "form":
        answer = http.post(CLASSIFY, files={"image": ("photo.bmp", body)})
    else:
        answer = http.post(CLASSIFY, content=body)
    assert answer.json()["predictions"][0]["classes"][0]["label"] == "7"


@pytest.mark.parametrize("wrong", ["=", "*", "\n", "é"])
def test_a_large_text_with_one_wrong_character_is_refused(http: httpx.Client, wrong: str) -> None:
    text = base64.b64encode(photo()).decode()
    for place in (2**20 - 1, 2**20, len(text) - 4):
        body = text[:place] + wrong + text[place + 1 :]
        status, error = post(http, CLASSIFY, orjson.dumps({"images": [body]}))
        assert (status, error) == (400, "images[0] is not base64 text")
