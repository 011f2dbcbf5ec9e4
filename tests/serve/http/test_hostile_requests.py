"""Long or deeply nested values in requests get 400 like other invalid values, never an internal error."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from models.artifact import BUNDLED
from tests.serve.conversations import parse_answers
from tests.serve.listeners import Serving, StartGateway, receive_all

DIGIT = (BUNDLED / "samples" / "mnist-0-7.png").read_bytes()
MODEL = "lenet5-mnist"
CLASSIFY, PREDICT, INFER = (
    f"/v1/models/{MODEL}/classify",
    f"/v1/models/{MODEL}:predict",
    f"/v2/models/{MODEL}/infer",
)
JSON = {"content-type": "application/json"}
DEEP = b"[" * 1000 + b"0" + b"]" * 1000
LONG = b"[" + b",".join([b"0"] * 9_000) + b"]"
NUMBER = "1" * 5000  # Python reads at most 4300 digits


@pytest.fixture(scope="module")
def gateway(start_gateway: StartGateway) -> Iterator[Serving]:
    with start_gateway(models=[{"name": MODEL}]) as gateway:
        yield gateway


def refused(gateway: Serving, path: str, body: bytes, headers: dict[str, str]) -> str:
    answer = httpx.post(gateway.http + path, content=body, headers=headers)
    assert answer.status_code == 400, answer.text
    assert len(answer.content) < 400
    return str(answer.json()["error"])


def objects(depth: int, inner: bytes = b'"x"') -> bytes:
    return b'{"b64": ' * depth + inner + b"}" * depth


@pytest.mark.parametrize("instance", [DEEP, LONG, objects(1000), objects(3), objects(1000, DEEP[1000:1001])])
def test_hostile_instances_get_400(gateway: Serving, instance: bytes) -> None:
    assert "instances[0]" in refused(gateway, PREDICT, b'{"instances": [%s]}' % instance, JSON)


@pytest.mark.parametrize("depth", [1, 2])
def test_an_image_in_nested_objects_is_read(gateway: Serving, depth: int) -> None:
    instance = objects(depth, b"[%s]" % b",".join([b"[" + b",".join([b"0"] * 28) + b"]"] * 28))
    answer = httpx.post(gateway.http + PREDICT, content=b'{"instances": [%s]}' % instance, headers=JSON)
    assert len(answer.json()["predictions"]) == 1


@pytest.mark.parametrize("value", [DEEP, LONG, objects(1000)])
@pytest.mark.parametrize("name", ["top_k", "threshold", "labels", "energy", "id"])
def test_hostile_options_get_400(gateway: Serving, name: str, value: bytes) -> None:
    assert name in refused(gateway, CLASSIFY, b'{"images": [], "%s": %s}' % (name.encode(), value), JSON)


@pytest.mark.parametrize("value", [DEEP, LONG, objects(1000)])
@pytest.mark.parametrize("name", ["shape", "data", "datatype", "name", "parameters"])
def test_hostile_fields_of_tensors_get_400(gateway: Serving, name: str, value: bytes) -> None:
    tensor = {"name": b'"image"', "datatype": b'"UINT8"', "shape": b"[1]", "data": b"[1]"}
    tensor[name] = b"[%s]" % value if name == "shape" else value
    entry = b", ".join(b'"%s": %s' % (key.encode(), text) for key, text in tensor.items())
    refused(gateway, INFER, b'{"inputs": [{%s}]}' % entry, JSON)


@pytest.mark.parametrize(
    "header", ["inference-header-content-length", "x-request-timeout-ms", "x-request-priority", "x-request-id"]
)
def test_long_numbers_in_headers_get_400(gateway: Serving, header: str) -> None:
    path = INFER if header.startswith("inference") else CLASSIFY
    assert header in refused(gateway, path, DIGIT, {header: NUMBER}).lower() or header == "x-request-id"


@pytest.mark.parametrize("query", [f"top_k={NUMBER}", f"threshold={NUMBER}", f"id={NUMBER}"])
def test_long_numbers_in_a_query_get_400(gateway: Serving, query: str) -> None:
    refused(gateway, f"{CLASSIFY}?{query}", DIGIT, {})


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("path", [CLASSIFY, "/v2/repository/index"])
def test_a_length_with_leading_zeros_is_read(gateway: Serving, path: str, version: str) -> None:
    head = f"POST {path} HTTP/{version}\r\nhost: here\r\nconnection: close\r\ncontent-length: {'0' * 5000}"
    with gateway.connect() as client:
        client.sendall(f"{head}{len(DIGIT)}\r\n\r\n".encode() + DIGIT)
        (answer,) = parse_answers(receive_all(client))
    assert answer.status == (200 if path == CLASSIFY else 400)  # not JSON, but the body was read
