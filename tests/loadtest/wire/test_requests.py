"""The bytes of requests in all protocols."""

from __future__ import annotations

import pytest

from convoy.protos import open_inference_pb2
from convoy.wire.oip_grpc import parse_message
from convoy.wire.oip_http import parse_request
from loadtest.payloads.item import Item
from loadtest.plan import Protocol, Target, Traffic
from loadtest.wire.requests import build_requests

ITEMS = (Item(b"one", expected=1), Item(b"two", expected=2), Item(b"three", expected=3))


def http(protocol: Protocol, **more: object) -> tuple[list[str], bytes]:
    target = Target("http://127.0.0.1:8000/base", protocol, headers=(("X-Key", "secret"),))
    request = build_requests(target, Traffic("a b", **more), ITEMS)[0]  # type: ignore[arg-type]
    head, _, body = request.data.partition(b"\r\n\r\n")
    return head.decode().split("\r\n"), body


def test_a_request_is_complete_and_has_its_deadline_and_priority() -> None:
    lines, body = http("classify", deadline_ms=250.0, priority=1)
    assert lines[0] == "POST /base/v1/models/a%20b/classify HTTP/1.1"
    expected = {
        "Host: 127.0.0.1:8000",
        "X-Key: secret",
        "X-Request-Timeout-Ms: 250",
        "X-Request-Priority: 1",
        "Content-Length: 3",
    }
    assert expected <= set(lines)
    assert body == b"one"


def test_without_keep_alive_the_request_asks_to_close() -> None:
    target = Target("http://127.0.0.1:8000", keep_alive=False)
    assert b"\r\nConnection: close\r\n" in build_requests(target, Traffic("m"), ITEMS)[0].data


def test_batches_start_at_their_own_item_and_wrap_around() -> None:
    requests = build_requests(Target("http://127.0.0.1:1", "classify-json"), Traffic("m", batch=2), ITEMS)
    assert [request.expected for request in requests] == [(1, 2), (2, 3), (3, 1)]


@pytest.mark.parametrize(("protocol", "binary"), [("oip", True), ("oip-json", False)])
def test_convoy_parses_open_inference_requests_over_http(protocol: Protocol, binary: bool) -> None:
    import numpy as np

    from loadtest.plan import Payload

    tensor = np.arange(6, dtype=np.float32).reshape(2, 3)
    traffic = Traffic("m", payload=Payload(kind="tensor", tensor="x"), deadline_ms=5.0, priority=2)
    request = build_requests(Target("http://127.0.0.1:1", protocol), traffic, (Item(tensor=tensor),))[0]
    head, _, body = request.data.partition(b"\r\n\r\n")
    length = next(
        (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"Inference-Header")), None
    )
    parsed = parse_request(body, length)
    assert (parsed.inputs[0].name, parsed.inputs[0].shape) == ("x", (1, 2, 3))
    assert np.array_equal(parsed.inputs[0].array[0], tensor)
    assert parsed.parameters["timeout"] == 5000
    assert parsed.parameters["priority"] == 2
    assert parsed.binary_output is binary


def test_convoy_parses_images_over_grpc() -> None:
    request = build_requests(
        Target("grpc://127.0.0.1:1", "grpc"), Traffic("m", batch=2, priority=1, deadline_ms=9.0), ITEMS
    )[2]
    parsed = parse_message(open_inference_pb2.ModelInferRequest.FromString(request.data))
    assert parsed.inputs[0].elements == [b"three", b"one"]
    assert parsed.parameters == {"priority": 1, "timeout": 9000}
    assert (request.path, request.deadline_s) == ("/inference.GRPCInferenceService/ModelInfer", 0.009)


def test_text_labels_request_the_classification_extension() -> None:
    items = (Item(b"one", expected="cat"),)
    request = build_requests(Target("http://127.0.0.1:1", "oip"), Traffic("m", output="logits"), items)[0]
    document = request.data
    assert b'"outputs":[{"name":"logits","parameters":{"classification":1}}]' in document
