"""The requests to limits and peers, and the labels in their responses."""

from __future__ import annotations

from pathlib import Path

import httpx
import numpy as np
import orjson
import pytest

from benchmarks.limit import output
from benchmarks.nets import Net, lenet5
from benchmarks.peers import requests


@pytest.fixture
def net(tmp_path: Path) -> Net:
    return lenet5(tmp_path)


def test_the_digit_of_the_benchmarks_is_a_seven(net: Net) -> None:
    assert requests.expected_label(net) == 7


def test_the_float_tensor_is_the_decoded_image(net: Net, tmp_path: Path) -> None:
    payload = requests.float_tensor(net, tmp_path)
    length = int(payload.headers[requests.LENGTH])
    body = payload.body.read_bytes()
    (tensor,) = orjson.loads(body[:length])["inputs"]
    rows = np.frombuffer(body, np.float32, offset=length)
    assert (tensor["name"], tensor["shape"], tensor["parameters"]) == (
        "input",
        [1, 1, 28, 28],
        {"binary_data_size": 3136},
    )
    assert rows.size == 784
    assert 0 <= rows.min() < rows.max() <= 1
    message = requests.message(net, "m", "tensor")
    assert message.raw_input_contents[0] == body[length:]


def test_both_protocols_carry_the_same_encoded_image(net: Net, tmp_path: Path) -> None:
    payload = requests.image_tensor(net, tmp_path)
    raw = payload.body.read_bytes()[int(payload.headers[requests.LENGTH]) :]
    assert raw[4:] == net.image.read_bytes()
    assert requests.message(net, "m", "image").raw_input_contents[0] == raw


def test_labels_are_found_in_every_form_of_response() -> None:
    logits = np.eye(10, dtype=np.float32)[3]
    head, values = output(logits)
    binary = httpx.Response(200, content=head + values, headers={requests.LENGTH: str(len(head))})
    element = orjson.dumps([[4, 0.9], [1, 0.1]])
    raw = len(element).to_bytes(4, "little") + element
    head = orjson.dumps({"outputs": [{"name": "top5", "datatype": "BYTES", "shape": [1, 1]}]})
    strings = httpx.Response(200, content=head + raw, headers={requests.LENGTH: str(len(head))})
    plain = httpx.Response(200, json={"top5": [[5, 0.9]]})
    assert [requests.http_label(response) for response in (binary, strings, plain)] == [3, 4, 5]
